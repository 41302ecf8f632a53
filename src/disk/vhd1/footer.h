// The hard disk footer (VHD 1.0, "Hard Disk Footer Format"): the last 512 bytes of every image, and
// the first 512 of a dynamic or differencing one.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "support/guid.h"
#include "support/status.h"

namespace bothy::disk::vhd1 {

inline constexpr size_t kFooterBytes = 512;
// Virtual PC before 2004 wrote them one byte shorter.
inline constexpr size_t kShortFooterBytes = 511;
inline constexpr uint64_t kNoOffset = ~uint64_t{0};

enum class DiskType : uint32_t { kFixed = 2, kDynamic = 3, kDifferencing = 4 };

// Cylinders, heads, sectors per track (VHD 1.0, appendix "CHS Calculation").
struct ChsGeometry {
  uint16_t cylinders = 0;
  uint8_t heads = 0;
  uint8_t sectors_per_track = 0;
  bool operator==(const ChsGeometry&) const = default;

  [[nodiscard]] uint64_t sectors() const { return uint64_t{cylinders} * heads * sectors_per_track; }
  // The largest one that holds no more than `sectors`, as far as the fields reach.
  static ChsGeometry For(uint64_t sectors);
};

struct Footer {
  uint64_t data_offset = kNoOffset;  // of the dynamic header; none for a fixed disk
  uint32_t time_stamp = 0;           // seconds since 2000-01-01 UTC
  std::array<char, 4> creator_application{};
  uint32_t creator_version = 0;
  std::array<char, 4> creator_host_os{};
  uint64_t original_size = 0;  // bytes
  uint64_t current_size = 0;
  ChsGeometry geometry;
  DiskType type = DiskType::kDynamic;
  Guid unique_id;  // stored in network byte order
  bool saved_state = false;
  bool operator==(const Footer&) const = default;

  // What a guest sees, in bytes: vhd1.h, Open, tells the rule.
  [[nodiscard]] uint64_t disk_bytes() const;
  [[nodiscard]] std::array<uint8_t, kFooterBytes> Encode() const;
};

// A new image's, with a fresh identifier unless one is given.
Footer MakeFooter(uint64_t size_bytes, DiskType type, const Guid& unique_id);

// `bytes` are kFooterBytes or kShortFooterBytes and lie at `offset` of the file. NotFound when they
// don't begin with the cookie, DataLoss for a wrong checksum or sizes that contradict each other,
// InvalidArgument for a version or type that isn't known.
absl::StatusOr<Footer> DecodeFooter(std::span<const uint8_t> bytes, uint64_t offset);

// Whether `bytes` begin with the cookie of a footer.
[[nodiscard]] bool HasFooterCookie(std::span<const uint8_t> bytes);

// The ones' complement of the sum of all bytes but the checksum's own four, at `checksum_at`.
[[nodiscard]] uint32_t Checksum(std::span<const uint8_t> bytes, size_t checksum_at);

// Identifiers as the format stores them: network byte order.
[[nodiscard]] Guid LoadGuid(const uint8_t* from);
void StoreGuid(uint8_t* to, const Guid& guid);

// Seconds since 1970 in the format's own epoch; what lies outside of it becomes 0.
[[nodiscard]] uint32_t ToTimeStamp(int64_t unix_seconds);

}  // namespace bothy::disk::vhd1
