// The dynamic disk header (VHD 1.0, "Dynamic Disk Header Format"): where the block allocation table
// is, and how a differencing disk finds its parent.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "support/guid.h"
#include "support/status.h"

namespace bothy::disk::vhd1 {

inline constexpr size_t kDynamicHeaderBytes = 1024;
inline constexpr size_t kLocatorCount = 8;
inline constexpr size_t kParentNameBytes = 512;
inline constexpr size_t kLocatorsAt = 576;
inline constexpr size_t kLocatorEntryBytes = 24;
inline constexpr size_t kHeaderChecksumAt = 36;

// "Parent Locator Entry": where in the file one spelling of the parent's path is.
struct LocatorEntry {
  uint32_t platform_code = 0;  // 0: unused
  // Room reserved at `data_offset`. The specification counts sectors, Microsoft's products bytes.
  uint32_t data_space = 0;
  uint32_t data_length = 0;  // bytes
  uint64_t data_offset = 0;
  bool operator==(const LocatorEntry&) const = default;

  [[nodiscard]] uint64_t room_bytes() const {
    return data_space < data_length ? uint64_t{data_space} * 512 : data_space;
  }
};

inline constexpr uint32_t kWindowsRelative = 0x57327275;     // "W2ru", UTF-16LE
inline constexpr uint32_t kWindowsAbsolute = 0x57326B75;     // "W2ku", UTF-16LE
inline constexpr uint32_t kOldWindowsRelative = 0x57693272;  // "Wi2r", 8 bits; deprecated
inline constexpr uint32_t kOldWindowsAbsolute = 0x5769326B;  // "Wi2k", 8 bits; deprecated
inline constexpr uint32_t kMacUrl = 0x4D616358;              // "MacX", a file URL in UTF-8

struct DynamicHeader {
  uint64_t table_offset = 0;  // of the block allocation table
  uint32_t max_table_entries = 0;
  uint32_t block_size = 0;  // bytes of data, without the sector bitmap
  Guid parent_unique_id;
  uint32_t parent_time_stamp = 0;
  std::string parent_name;  // UTF-8 here, UTF-16BE in the file; empty when it can't be told
  std::array<LocatorEntry, kLocatorCount> locators{};

  [[nodiscard]] absl::StatusOr<std::array<uint8_t, kDynamicHeaderBytes>> Encode() const;
  // Bytes before each block's data that say which of its sectors are there.
  [[nodiscard]] uint64_t bitmap_bytes() const {
    const uint64_t bytes = block_size / 512 / 8;
    return (bytes + 511) / 512 * 512;
  }
};

// `bytes` are kDynamicHeaderBytes that lie at `offset` of the file. DataLoss for a wrong cookie or
// checksum, InvalidArgument for a version or block size that isn't supported.
// `trust_checksum` false: a wrong one is no error, for repair.
absl::StatusOr<DynamicHeader> DecodeDynamicHeader(std::span<const uint8_t> bytes, uint64_t offset,
                                                  bool trust_checksum = true);

}  // namespace bothy::disk::vhd1
