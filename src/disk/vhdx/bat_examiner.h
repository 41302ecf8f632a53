// BatExaminer: looks at BAT entries one after the other and says what is wrong with each. What
// Check reports and Repair puts right.
#pragma once

#include <cstdint>
#include <string>

#include "disk/vhdx/bat.h"
#include "disk/vhdx/image_file.h"
#include "disk/vhdx/space_map.h"

namespace bothy::disk::vhdx {

enum class EntryFault : uint8_t {
  kNone,
  kState,        // not a state, or not one of this kind of entry
  kStrayBitmap,  // a sector bitmap entry that means nothing in an image without a parent
  kOutside,      // begins past the file's end
  kCutShort,     // begins within the file and ends past its end
  kNoBitmap,     // partially present without a sector bitmap
  kReserved,     // reserved bits are set; the block is as good as any
  kShared,       // overlaps log, regions or an earlier entry's block
};
[[nodiscard]] const char* Describe(EntryFault fault);

class BatExaminer {
 public:
  // `image` outlives it. Claims the space of the structures. What begins before `file_bytes` is
  // within the file, and cut short when it ends past `extended_bytes`, to which the file was made
  // longer.
  BatExaminer(const ImageFile& image, uint64_t file_bytes, uint64_t extended_bytes);
  BatExaminer(const ImageFile& image, uint64_t file_bytes)
      : BatExaminer(image, file_bytes, file_bytes) {}

  // The first fault of the entry at `index` that shows without the other ones, in the order above:
  // any but kShared. `bitmap_entry` is that of its chunk, for a payload block of a differencing
  // image.
  [[nodiscard]] EntryFault FindFault(uint64_t index, BatEntry entry, BatEntry bitmap_entry) const;
  // The same, or kShared when there is none; each entry once, in any order. Claims the space of a
  // block that has a place of its own in the file, whatever else is wrong with its entry.
  EntryFault Examine(uint64_t index, BatEntry entry, BatEntry bitmap_entry);
  // Of the block, or the sector bitmap, that the entry at `index` is about.
  [[nodiscard]] uint64_t LengthOf(uint64_t index) const;

  [[nodiscard]] uint64_t blocks_allocated() const { return blocks_allocated_; }
  [[nodiscard]] uint64_t allocated_bytes() const { return allocated_bytes_; }
  [[nodiscard]] SpaceMap& space() { return space_; }

 private:
  [[nodiscard]] EntryFault FindPlaceFault(BatEntry entry, uint64_t length) const;
  // Whether a sector bitmap entry says where one is, and that place can be.
  [[nodiscard]] bool IsBitmapSound(BatEntry entry) const;

  const ImageFile& image_;
  const uint64_t file_bytes_;
  const uint64_t extended_bytes_;
  SpaceMap space_;
  uint64_t blocks_allocated_ = 0;
  uint64_t allocated_bytes_ = 0;
};

}  // namespace bothy::disk::vhdx
