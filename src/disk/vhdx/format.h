// Constants of the VHDX format ([MS-VHDX], v20240423) that more than one part needs.
#pragma once

#include <cstdint>

#include "support/guid.h"

namespace bothy::disk::vhdx {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;

// 2.1: every object begins at a multiple of it.
inline constexpr uint64_t kAlignment = kMiB;
// 2.2: the header section, where no object may lie.
inline constexpr uint64_t kHeaderSectionBytes = kMiB;
inline constexpr uint64_t kFileIdentifierOffset = 0;
inline constexpr uint64_t kHeaderOffsets[2] = {64 * kKiB, 128 * kKiB};
inline constexpr uint64_t kRegionTableOffsets[2] = {192 * kKiB, 256 * kKiB};
inline constexpr uint32_t kFileIdentifierBytes = 8 + 512;
inline constexpr uint32_t kHeaderBytes = 4096;
inline constexpr uint32_t kRegionTableBytes = 64 * 1024;
inline constexpr uint32_t kMetadataTableBytes = 64 * 1024;
// 2.3.1: what the log replaces at once, and so what tables are cached in.
inline constexpr uint32_t kPageBytes = 4096;
// 2.4: of each sector bitmap block.
inline constexpr uint64_t kSectorBitmapBytes = kMiB;
inline constexpr uint64_t kSectorsPerBitmapBlock = uint64_t{1} << 23;

// No image of a disk of 64 TiB is bigger. Not of the format: a bound for what a checker tracks.
inline constexpr uint64_t kMaxFileBytes = uint64_t{128} << 40;
// The longest log that is replayed; Windows writes 1 MiB. Not of the format: a bound of time.
inline constexpr uint64_t kMaxLogBytes = 256 * kMiB;

// 2.2.3.2
inline constexpr Guid kBatRegion =
    Guid::FromFields(0x2DC27766, 0xF623, 0x4200, {0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08});
inline constexpr Guid kMetadataRegion =
    Guid::FromFields(0x8B7CA206, 0x4790, 0x4B9A, {0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88, 0x6E});

// 2.6.2
inline constexpr Guid kFileParametersItem =
    Guid::FromFields(0xCAA16737, 0xFA36, 0x4D43, {0xB3, 0xB6, 0x33, 0xF0, 0xAA, 0x44, 0xE7, 0x6B});
inline constexpr Guid kVirtualDiskSizeItem =
    Guid::FromFields(0x2FA54224, 0xCD1B, 0x4876, {0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4, 0xB8});
inline constexpr Guid kVirtualDiskIdItem =
    Guid::FromFields(0xBECA12AB, 0xB2E6, 0x4523, {0x93, 0xEF, 0xC3, 0x09, 0xE0, 0x00, 0xC7, 0x46});
inline constexpr Guid kLogicalSectorSizeItem =
    Guid::FromFields(0x8141BF1D, 0xA96F, 0x4709, {0xBA, 0x47, 0xF2, 0x33, 0xA8, 0xFA, 0xAB, 0x5F});
inline constexpr Guid kPhysicalSectorSizeItem =
    Guid::FromFields(0xCDA348C7, 0x445D, 0x4471, {0x9C, 0xC9, 0xE9, 0x88, 0x52, 0x51, 0xC5, 0x56});
inline constexpr Guid kParentLocatorItem =
    Guid::FromFields(0xA8D35F2D, 0xB30B, 0x454D, {0xAB, 0xF7, 0xD3, 0xD8, 0x48, 0x34, 0xAB, 0x0C});
// 2.6.2.6.3
inline constexpr Guid kVhdxLocatorType =
    Guid::FromFields(0xB04AEFB7, 0xD19E, 0x4A81, {0xB7, 0x89, 0x25, 0xB8, 0xE9, 0x44, 0x59, 0x13});

[[nodiscard]] constexpr uint64_t RoundUp(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
[[nodiscard]] constexpr uint64_t RoundDown(uint64_t value, uint64_t multiple) {
  return value / multiple * multiple;
}

}  // namespace bothy::disk::vhdx
