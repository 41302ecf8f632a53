// The block allocation table ([MS-VHDX] 2.5): what its entries say and which entry is whose.
#pragma once

#include <cstdint>

#include "disk/vhdx/format.h"
#include "disk/vhdx/metadata.h"

namespace bothy::disk::vhdx {

// 2.5.1.1, 2.5.1.2
enum class BlockState : uint8_t {
  kNotPresent = 0,
  kUndefined = 1,
  kZero = 2,
  kUnmapped = 3,
  kFullyPresent = 6,  // of a sector bitmap block: SB_BLOCK_PRESENT
  kPartiallyPresent = 7,
};

// One entry, as in the file.
class BatEntry {
 public:
  BatEntry() = default;
  explicit constexpr BatEntry(uint64_t bits) : bits_(bits) {}
  // `file_offset` is a multiple of 1 MiB.
  constexpr BatEntry(BlockState state, uint64_t file_offset)
      : bits_(static_cast<uint64_t>(state) | file_offset) {}

  [[nodiscard]] constexpr uint64_t bits() const { return bits_; }
  [[nodiscard]] constexpr BlockState state() const { return static_cast<BlockState>(bits_ & 7); }
  // Bytes. Only means something when the block is present.
  [[nodiscard]] constexpr uint64_t file_offset() const { return bits_ & ~(kMiB - 1); }
  [[nodiscard]] constexpr bool reserved_bits() const { return (bits_ & (kMiB - 1) & ~7ULL) != 0; }
  [[nodiscard]] constexpr BatEntry WithoutReservedBits() const {
    return BatEntry(bits_ & ~((kMiB - 1) & ~7ULL));
  }
  // Whether the block has room in the file.
  [[nodiscard]] constexpr bool present() const {
    return state() == BlockState::kFullyPresent || state() == BlockState::kPartiallyPresent;
  }
  constexpr bool operator==(const BatEntry&) const = default;

 private:
  uint64_t bits_ = 0;
};

inline constexpr uint32_t kBatEntryBytes = 8;
inline constexpr uint32_t kBatEntriesPerPage = kPageBytes / kBatEntryBytes;

// The numbers that follow from a disk's parameters (2.4, 2.5).
class BatLayout {
 public:
  BatLayout() = default;
  // `offset` is that of the BAT region in the file.
  BatLayout(uint64_t offset, const DiskParameters& parameters);

  [[nodiscard]] uint64_t chunk_ratio() const { return uint64_t{1} << chunk_shift_; }
  [[nodiscard]] uint64_t payload_blocks() const { return payload_blocks_; }
  [[nodiscard]] uint64_t chunks() const { return chunks_; }
  // Entries that the table must have, and their room.
  [[nodiscard]] uint64_t entries() const { return entries_; }
  [[nodiscard]] uint64_t bytes() const { return entries_ * kBatEntryBytes; }

  [[nodiscard]] uint64_t PayloadIndex(uint64_t block) const {
    return block + (block >> chunk_shift_);
  }
  [[nodiscard]] uint64_t ChunkOf(uint64_t block) const { return block >> chunk_shift_; }
  [[nodiscard]] uint64_t BitmapIndex(uint64_t chunk) const {
    return ((chunk + 1) << chunk_shift_) + chunk;
  }
  // Whether the entry is that of a sector bitmap block; else it is the payload block
  // BlockOf(index).
  [[nodiscard]] bool IsBitmapIndex(uint64_t index) const {
    return index % (chunk_ratio() + 1) == chunk_ratio();
  }
  [[nodiscard]] uint64_t BlockOf(uint64_t index) const {
    return index - index / (chunk_ratio() + 1);
  }
  // Where an entry lies in the file: the offset of its page, and its place within.
  [[nodiscard]] uint64_t PageOffset(uint64_t index) const {
    return offset_ + index / kBatEntriesPerPage * kPageBytes;
  }
  [[nodiscard]] static uint32_t Slot(uint64_t index) {
    return static_cast<uint32_t>(index % kBatEntriesPerPage);
  }
  [[nodiscard]] uint64_t EntryOffset(uint64_t index) const {
    return offset_ + index * kBatEntryBytes;
  }

 private:
  uint64_t offset_ = 0;
  uint64_t payload_blocks_ = 0;
  uint64_t chunks_ = 0;
  uint64_t entries_ = 0;
  uint32_t chunk_shift_ = 0;
};

}  // namespace bothy::disk::vhdx
