#include "disk/vhdx/bat_examiner.h"

namespace bothy::disk::vhdx {

const char* Describe(EntryFault fault) {
  switch (fault) {
    case EntryFault::kNone:
      return "sound";
    case EntryFault::kState:
      return "not a state that this entry can have";
    case EntryFault::kStrayBitmap:
      return "a sector bitmap, in an image without a parent";
    case EntryFault::kOutside:
      return "not within the file";
    case EntryFault::kCutShort:
      return "ends past the end of the file, which was cut short";
    case EntryFault::kNoBitmap:
      return "partially present, but without a sector bitmap";
    case EntryFault::kReserved:
      return "reserved bits aren't 0";
    case EntryFault::kShared:
      return "shares its space with another block, the log or a region";
  }
  return "unknown";
}

BatExaminer::BatExaminer(const ImageFile& image, uint64_t file_bytes, uint64_t extended_bytes)
    : image_(image), file_bytes_(file_bytes), extended_bytes_(extended_bytes) {
  for (const ImageFile::Extent& structure : image.structures()) {
    space_.Claim(structure.offset, structure.end - structure.offset);
  }
}

uint64_t BatExaminer::LengthOf(uint64_t index) const {
  return image_.bat().IsBitmapIndex(index) ? kSectorBitmapBytes : image_.parameters().block_bytes;
}

EntryFault BatExaminer::FindPlaceFault(BatEntry entry, uint64_t length) const {
  // No image has a block that would make it too big to be opened.
  if (entry.file_offset() >= file_bytes_ || length > kMaxFileBytes - entry.file_offset()) {
    return EntryFault::kOutside;
  }
  return entry.file_offset() + length > extended_bytes_ ? EntryFault::kCutShort : EntryFault::kNone;
}

// One that is cut short, or has reserved bits set, has that as a fault of its own.
bool BatExaminer::IsBitmapSound(BatEntry entry) const {
  return entry.state() == BlockState::kFullyPresent &&
         FindPlaceFault(entry, kSectorBitmapBytes) != EntryFault::kOutside &&
         image_.IsBlockSpace(entry.file_offset(), kSectorBitmapBytes);
}

EntryFault BatExaminer::FindFault(uint64_t index, BatEntry entry, BatEntry bitmap_entry) const {
  const bool has_parent = image_.parameters().has_parent;
  const bool partial = entry.state() == BlockState::kPartiallyPresent;
  if (image_.bat().IsBitmapIndex(index)) {
    if (entry.state() == BlockState::kNotPresent) return EntryFault::kNone;
    if (!has_parent) return EntryFault::kStrayBitmap;
    if (entry.state() != BlockState::kFullyPresent) return EntryFault::kState;
  } else {
    switch (entry.state()) {
      case BlockState::kNotPresent:
      case BlockState::kUndefined:
      case BlockState::kZero:
      case BlockState::kUnmapped:
        return EntryFault::kNone;
      case BlockState::kFullyPresent:
      case BlockState::kPartiallyPresent:
        break;
      default:
        return EntryFault::kState;
    }
    if (partial && !has_parent) return EntryFault::kState;
  }
  const EntryFault fault = FindPlaceFault(entry, LengthOf(index));
  if (fault != EntryFault::kNone) return fault;
  if (partial && !IsBitmapSound(bitmap_entry)) return EntryFault::kNoBitmap;
  return entry.reserved_bits() ? EntryFault::kReserved : EntryFault::kNone;
}

EntryFault BatExaminer::Examine(uint64_t index, BatEntry entry, BatEntry bitmap_entry) {
  const EntryFault fault = FindFault(index, entry, bitmap_entry);
  switch (fault) {
    case EntryFault::kState:
    case EntryFault::kStrayBitmap:
    case EntryFault::kOutside:
    case EntryFault::kShared:
      return fault;
    case EntryFault::kNone:
    case EntryFault::kCutShort:
    case EntryFault::kNoBitmap:
    case EntryFault::kReserved:
      break;
  }
  if (!entry.present()) return fault;
  if (!space_.Claim(entry.file_offset(), LengthOf(index))) {
    return fault == EntryFault::kNone ? EntryFault::kShared : fault;
  }
  allocated_bytes_ += LengthOf(index);
  if (!image_.bat().IsBitmapIndex(index)) ++blocks_allocated_;
  return fault;
}

}  // namespace bothy::disk::vhdx
