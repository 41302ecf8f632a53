// What a guest knows a disk by: names that stay over restarts of the VM, so that links as in
// /dev/disk/by-id do.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "disk/disk.h"
#include "support/status.h"

namespace bothy::scsi {

inline constexpr std::string_view kVendor = "BOTHY   ";  // T10 vendor identification, 8 characters
inline constexpr size_t kMaxSerialBytes = 64;
inline constexpr size_t kMaxProductBytes = 16;

// 32 hexadecimal digits: the identity that the image carries, which a differencing disk has from
// its parent and a copy of the file shares; without one (a raw file) a name made of its path.
[[nodiscard]] std::string DefaultSerial(const disk::Disk& disk);
[[nodiscard]] std::string SerialOfPath(std::string_view path);

// InvalidArgument unless `text` is 1..`max_bytes` printable ASCII characters without a blank at
// either end.
[[nodiscard]] absl::Status CheckInquiryText(std::string_view text, size_t max_bytes);

// The locally assigned NAA name (SPC-5, 7.7.6.6.5) of the unit with that serial number: the same
// always and everywhere, and different for different serial numbers but by a chance of 2^-60.
[[nodiscard]] uint64_t LocallyAssignedName(std::string_view serial);

}  // namespace bothy::scsi
