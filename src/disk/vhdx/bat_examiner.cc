#include "disk/vhdx/bat_examiner.h"

namespace bothy::disk::vhdx {

const char* Describe(EntryFault fault) {
  switch (fault) {
    case EntryFault::kNone:
      return "sound";
    case EntryFault::kState:
      return "not a state that this entry can have";
    case EntryFault::kReserved:
      return "reserved bits aren't 0";
    case EntryFault::kOutside:
      return "not within the file";
    case EntryFault::kShared:
      return "shares its space with another block, the log or a region";
    case EntryFault::kNoBitmap:
      return "partially present, but without a sector bitmap";
    case EntryFault::kStrayBitmap:
      return "a sector bitmap, in an image without a parent";
  }
  return "unknown";
}

BatExaminer::BatExaminer(const ImageFile& image, uint64_t file_bytes)
    : image_(image), file_bytes_(file_bytes) {
  for (const ImageFile::Extent& structure : image.structures()) {
    space_.Claim(structure.offset, structure.end - structure.offset);
  }
}

EntryFault BatExaminer::FindPlaceFault(BatEntry entry, uint64_t length) const {
  if (entry.reserved_bits()) return EntryFault::kReserved;
  if (entry.file_offset() > file_bytes_ || length > file_bytes_ - entry.file_offset()) {
    return EntryFault::kOutside;
  }
  return EntryFault::kNone;
}

EntryFault BatExaminer::Claim(BatEntry entry, uint64_t length) {
  const EntryFault fault = FindPlaceFault(entry, length);
  if (fault != EntryFault::kNone) return fault;
  if (!space_.Claim(entry.file_offset(), length)) return EntryFault::kShared;
  allocated_bytes_ += length;
  return EntryFault::kNone;
}

bool BatExaminer::IsBitmapSound(BatEntry entry) const {
  return entry.state() == BlockState::kFullyPresent &&
         FindPlaceFault(entry, kSectorBitmapBytes) == EntryFault::kNone &&
         image_.IsBlockSpace(entry.file_offset(), kSectorBitmapBytes);
}

EntryFault BatExaminer::Examine(uint64_t index, BatEntry entry, BatEntry bitmap_entry) {
  const bool has_parent = image_.parameters().has_parent;
  if (image_.bat().IsBitmapIndex(index)) {
    if (entry.state() == BlockState::kNotPresent) return EntryFault::kNone;
    if (!has_parent) return EntryFault::kStrayBitmap;
    if (entry.state() != BlockState::kFullyPresent) return EntryFault::kState;
    return Claim(entry, kSectorBitmapBytes);
  }
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
  const bool partial = entry.state() == BlockState::kPartiallyPresent;
  if (partial && !has_parent) return EntryFault::kState;
  const EntryFault fault = Claim(entry, image_.parameters().block_bytes);
  if (fault != EntryFault::kNone) return fault;
  ++blocks_allocated_;
  return partial && !IsBitmapSound(bitmap_entry) ? EntryFault::kNoBitmap : EntryFault::kNone;
}

}  // namespace bothy::disk::vhdx
