// How much one command may ask for: what the block limits page (SBC-4, 6.6.4) promises, and what is
// enforced. They bound the memory and the time that a command costs.
#pragma once

#include <algorithm>
#include <cstdint>

namespace bothy::scsi {

// Transfers, and what VERIFY reads.
inline constexpr uint64_t kMaxTransferBytes = uint64_t{32} << 20;
inline constexpr uint64_t kMaxWriteSameBytes = uint64_t{4} << 30;
// All descriptors of one UNMAP together.
inline constexpr uint64_t kMaxUnmapBytes = uint64_t{4} << 30;
inline constexpr uint32_t kMaxUnmapDescriptors = 256;
inline constexpr uint64_t kMaxCompareAndWriteBytes = uint64_t{128} << 10;
[[nodiscard]] inline uint8_t MaxCompareAndWriteBlocks(uint32_t block_bytes) {
  return static_cast<uint8_t>(std::min<uint64_t>(kMaxCompareAndWriteBytes / block_bytes, 255));
}
// Private memory of a command that copies, of which a unit runs one at a time: twice this.
inline constexpr uint64_t kScratchBytes = uint64_t{256} << 10;
// Extents that one GET LBA STATUS looks up, and descriptors that it returns.
inline constexpr uint32_t kMaxExtentLookups = 1024;
inline constexpr uint32_t kMaxStatusDescriptors = 256;
// Sectors: powers of two from 512 on.
inline constexpr uint32_t kMaxBlockBytes = 64 << 10;

}  // namespace bothy::scsi
