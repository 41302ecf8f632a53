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
  kReserved,     // reserved bits are set
  kOutside,      // not within the file
  kShared,       // overlaps log, regions or an earlier entry's block
  kNoBitmap,     // partially present without a sector bitmap
  kStrayBitmap,  // a sector bitmap entry that means nothing in an image without a parent
};
[[nodiscard]] const char* Describe(EntryFault fault);

class BatExaminer {
 public:
  // `image` outlives it. Claims the space of the structures.
  BatExaminer(const ImageFile& image, uint64_t file_bytes);

  // The entry at `index`; each one once, in any order. `bitmap_entry` is that of its chunk, for a
  // payload block of a differencing image. The space of a sound one is claimed.
  EntryFault Examine(uint64_t index, BatEntry entry, BatEntry bitmap_entry);
  // Whether a sector bitmap entry says where one is, and that place can be.
  [[nodiscard]] bool IsBitmapSound(BatEntry entry) const;

  [[nodiscard]] uint64_t blocks_allocated() const { return blocks_allocated_; }
  [[nodiscard]] uint64_t allocated_bytes() const { return allocated_bytes_; }
  [[nodiscard]] SpaceMap& space() { return space_; }

 private:
  [[nodiscard]] EntryFault FindPlaceFault(BatEntry entry, uint64_t length) const;
  EntryFault Claim(BatEntry entry, uint64_t length);

  const ImageFile& image_;
  const uint64_t file_bytes_;
  SpaceMap space_;
  uint64_t blocks_allocated_ = 0;
  uint64_t allocated_bytes_ = 0;
};

}  // namespace bothy::disk::vhdx
