// VhdxDisk: where contents are.
#include "absl/strings/str_cat.h"
#include "disk/vhdx/sector_bitmap.h"
#include "disk/vhdx/vhdx_disk.h"

namespace bothy::disk::vhdx {

// Blocks without contents come in long runs, of millions in a large image: all that the page at
// hand tells of is one.
uint64_t VhdxDisk::EndOfAlike(const Entries& entries, uint64_t offset) const {
  uint64_t block = BlockOf(offset);
  const uint64_t bits = entries.entry().bits();
  uint64_t index = bat().PayloadIndex(block);
  for (uint32_t slot = entries.slot + 1; slot < kBatEntriesPerPage; ++slot) {
    ++index;
    if (bat().IsBitmapIndex(index)) continue;
    if (block + 1 == bat().payload_blocks() || entries.page->Load64(slot) != bits) break;
    ++block;
  }
  return BlockEnd(block << block_shift_);
}

Task<absl::StatusOr<Extent>> VhdxDisk::MapExtent(uint64_t offset) {
  if (offset >= geometry_.size_bytes) {
    co_return absl::OutOfRangeError(absl::StrCat(path(), ": offset ", offset, " past the end"));
  }
  absl::StatusOr<Entries> entries = co_await LoadEntries(BlockOf(offset));
  if (!entries.ok()) co_return WithContext(entries.status(), path());
  Extent extent = {.kind = Extent::Kind::kOpaque, .length = BlockEnd(offset) - offset};
  switch (entries->entry().state()) {
    case BlockState::kFullyPresent:
      if (storage_.fd() < 0) break;
      if (!geometry_.read_only) {
        // Who maps it changes it without asking again.
        absl::Status status = co_await BeginChanges();
        CO_RETURN_IF_ERROR(status);
      }
      if (entries->entry().state() != BlockState::kFullyPresent) break;
      extent.kind = Extent::Kind::kFile;
      extent.fd = storage_.fd();
      extent.file_offset = entries->entry().file_offset() + WithinBlock(offset);
      extent.writable = !geometry_.read_only;
      break;
    case BlockState::kPartiallyPresent:
      break;
    case BlockState::kNotPresent:
      if (parent_ != nullptr && offset < parent_bytes_) {
        absl::StatusOr<Extent> there = co_await parent_->MapExtent(offset);
        CO_RETURN_IF_ERROR(there.status());
        const uint64_t length = EndOfAlike(*entries, offset) - offset;
        extent = *there;
        extent.length = std::min(extent.length, length);
        extent.writable = false;
        break;
      }
      [[fallthrough]];
    default:
      extent.kind = Extent::Kind::kZero;
      extent.length = EndOfAlike(*entries, offset) - offset;
  }
  co_return extent;
}

Task<absl::StatusOr<Presence>> VhdxDisk::FindPresence(uint64_t offset) {
  if (offset >= geometry_.size_bytes) {
    co_return absl::OutOfRangeError(absl::StrCat(path(), ": offset ", offset, " past the end"));
  }
  absl::StatusOr<Entries> entries = co_await LoadEntries(BlockOf(offset));
  if (!entries.ok()) co_return WithContext(entries.status(), path());
  Presence presence = {.kind = Presence::Kind::kHere, .length = BlockEnd(offset) - offset};
  MetadataStore::PageRef bitmap;
  if (entries->entry().state() == BlockState::kPartiallyPresent) {
    absl::StatusOr<MetadataStore::PageRef> loaded = co_await LoadBitmap(*entries, offset);
    if (!loaded.ok()) co_return WithContext(loaded.status(), path());
    bitmap = *std::move(loaded);
  }
  switch (entries->entry().state()) {
    case BlockState::kFullyPresent:
      break;
    case BlockState::kPartiallyPresent: {
      const uint64_t end = std::min(BlockEnd(offset), BitmapPageEnd(offset));
      const uint32_t first = BitOf(offset);
      const auto last = first + static_cast<uint32_t>((end - offset) >> sector_shift_);
      bool here = false;
      presence.length = uint64_t{BitRun(bitmap->bytes, first, last, here)} << sector_shift_;
      presence.kind = here ? Presence::Kind::kHere : Presence::Kind::kParent;
      break;
    }
    case BlockState::kNotPresent:
      presence.kind = parent_ != nullptr ? Presence::Kind::kParent : Presence::Kind::kZero;
      presence.length = EndOfAlike(*entries, offset) - offset;
      break;
    default:
      presence.kind = Presence::Kind::kZero;
      presence.length = EndOfAlike(*entries, offset) - offset;
  }
  co_return presence;
}

}  // namespace bothy::disk::vhdx
