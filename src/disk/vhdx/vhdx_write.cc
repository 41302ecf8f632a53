// VhdxDisk: writing into blocks that have to be made first, or that a sector bitmap describes.
#include "disk/vhdx/sector_bitmap.h"
#include "disk/vhdx/vhdx_disk.h"
#include "support/check.h"

namespace bothy::disk::vhdx {

using Order = MetadataStore::Order;

Task<absl::Status> VhdxDisk::WritePiece(Piece piece) {
  const uint64_t block = BlockOf(piece.offset);
  while (true) {
    absl::StatusOr<BatEntry> entry = co_await PrepareBlock(block);
    CO_RETURN_IF_ERROR(entry.status());
    if (entry->state() == BlockState::kPartiallyPresent) {
      absl::Status status = co_await WritePartial(piece, *entry);
      // The block became another one while this waited for room.
      if (absl::IsAborted(status)) continue;
      co_return status;
    }
    if (entry->state() != BlockState::kFullyPresent) continue;
    Gather writes;
    const InEpoch in_epoch(epochs_);
    PassOn(piece, entry->file_offset(), writes);
    co_return co_await writes.Wait();
  }
}

Task<absl::StatusOr<BatEntry>> VhdxDisk::PrepareBlock(uint64_t block) {
  while (true) {
    absl::StatusOr<Entries> entries = co_await LoadEntries(block);
    CO_RETURN_IF_ERROR(entries.status());
    const BatEntry entry = entries->entry();
    if (entry.present()) co_return entry;
    absl::Status status;
    if (has_parent() && entry.state() == BlockState::kNotPresent) {
      status = co_await AllocatePartial(block);
    } else {
      status = co_await AllocateFull(block);
    }
    CO_RETURN_IF_ERROR(status);
  }
}

Task<absl::Status> VhdxDisk::PlaceBlock(uint64_t index, MetadataStore::Page& page,
                                        BlockState state) {
  while (true) {
    // While this waited somebody else may have been quicker. From here on nothing waits.
    const BatEntry entry(page.Load64(BatLayout::Slot(index)));
    const bool inherits = has_parent() && entry.state() == BlockState::kNotPresent;
    if (entry.present() || inherits != (state == BlockState::kPartiallyPresent)) {
      co_return absl::OkStatus();
    }
    const std::optional<SpaceAllocator::Space> space = space_.TryTakeBlock();
    if (space.has_value()) {
      const BatEntry made(state, space->offset);
      page.Store64(BatLayout::Slot(index), made.bits());
      tables_.MarkDirty(page, space->used_before ? Order::kAfterData : Order::kAny);
      co_return absl::OkStatus();
    }
    absl::Status status = co_await space_.Grow(block_bytes_);
    CO_RETURN_IF_ERROR(status);
  }
}

Task<absl::Status> VhdxDisk::AllocateFull(uint64_t block) {
  absl::Status status = co_await tables_.Reserve(1);
  CO_RETURN_IF_ERROR(status);
  const uint64_t index = bat().PayloadIndex(block);
  absl::StatusOr<MetadataStore::PageRef> page = co_await LoadBatPage(index);
  status = page.status();
  if (status.ok()) status = co_await PlaceBlock(index, **page, BlockState::kFullyPresent);
  tables_.Release(1);
  co_return status;
}

uint32_t VhdxDisk::PagesOfPartialWrite() const {
  const uint64_t bits = block_bytes_ >> sector_shift_;
  // The block's entry, its chunk's, and all of its bits.
  return 2 + static_cast<uint32_t>(RoundUp(bits, kBitsPerPage) / kBitsPerPage);
}

Task<absl::Status> VhdxDisk::AllocatePartial(uint64_t block) {
  absl::Status status = co_await tables_.Reserve(PagesOfPartialWrite());
  CO_RETURN_IF_ERROR(status);
  const uint64_t index = bat().PayloadIndex(block);
  {
    const KeyedLock::Guard guard = co_await allocating_.Lock(index);
    absl::StatusOr<MetadataStore::PageRef> page = co_await LoadBatPage(index);
    status = page.status();
    const bool not_present =
        status.ok() &&
        BatEntry((*page)->Load64(BatLayout::Slot(index))).state() == BlockState::kNotPresent;
    if (not_present) {
      // What the block's entry promises has to be there first: in the same commit at the latest.
      status = co_await AllocateBitmap(bat().ChunkOf(block));
      if (status.ok()) status = co_await ClearBits(block);
      if (status.ok()) status = co_await PlaceBlock(index, **page, BlockState::kPartiallyPresent);
    }
  }
  tables_.Release(PagesOfPartialWrite());
  co_return status;
}

Task<absl::Status> VhdxDisk::AllocateBitmap(uint64_t chunk) {
  const uint64_t index = bat().BitmapIndex(chunk);
  const KeyedLock::Guard guard = co_await allocating_.Lock(index);
  absl::StatusOr<MetadataStore::PageRef> page = co_await LoadBatPage(index);
  CO_RETURN_IF_ERROR(page.status());
  const BatEntry entry((*page)->Load64(BatLayout::Slot(index)));
  if (entry.state() != BlockState::kNotPresent) co_return CheckBitmapEntry(index, entry);
  while (true) {
    const std::optional<SpaceAllocator::Space> space = space_.TryTakeNew(kSectorBitmapBytes);
    if (space.has_value()) {
      const BatEntry made(BlockState::kFullyPresent, space->offset);
      (*page)->Store64(BatLayout::Slot(index), made.bits());
      tables_.MarkDirty(**page, Order::kAny);
      co_return absl::OkStatus();
    }
    absl::Status status = co_await space_.Grow(kSectorBitmapBytes);
    CO_RETURN_IF_ERROR(status);
  }
}

// Others may leave anything in the bits of blocks that aren't partially present.
Task<absl::Status> VhdxDisk::ClearBits(uint64_t block) {
  absl::StatusOr<Entries> entries = co_await LoadEntries(block);
  CO_RETURN_IF_ERROR(entries.status());
  const uint64_t end = (block + 1) << block_shift_;
  for (uint64_t at = block << block_shift_; at < end; at = BitmapPageEnd(at)) {
    absl::StatusOr<MetadataStore::PageRef> bitmap = co_await LoadBitmap(*entries, at);
    CO_RETURN_IF_ERROR(bitmap.status());
    const uint32_t first = BitOf(at);
    const auto count =
        static_cast<uint32_t>((std::min(end, BitmapPageEnd(at)) - at) >> sector_shift_);
    if (AllBits((*bitmap)->bytes, first, first + count, false)) continue;
    FillBits((*bitmap)->bytes, first, first + count, false);
    tables_.MarkDirty(**bitmap, Order::kAny);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> VhdxDisk::WritePartial(Piece piece, BatEntry entry) {
  // The bits of the piece, which all are in one page, and the block's entry.
  constexpr uint32_t kPages = 2;
  absl::Status status = co_await tables_.Reserve(kPages);
  CO_RETURN_IF_ERROR(status);
  absl::StatusOr<Entries> entries = co_await LoadEntries(BlockOf(piece.offset));
  status = entries.status();
  absl::StatusOr<MetadataStore::PageRef> bitmap = MetadataStore::PageRef();
  if (status.ok() && entries->entry() == entry) {
    bitmap = co_await LoadBitmap(*entries, piece.offset);
    status = bitmap.status();
  }
  if (status.ok() && entries->entry() != entry) status = absl::AbortedError("another block");
  if (status.ok()) {
    Gather writes;
    const InEpoch in_epoch(epochs_);
    PassOn(piece, entry.file_offset(), writes);
    status = co_await writes.Wait();
  }
  // A block that was given up meanwhile, or is wholly there now, needs no bits.
  if (status.ok() && entries->entry() == entry) {
    SetBits(piece, **bitmap);
    MakeFullIfComplete(BlockOf(piece.offset), entry, *entries->page);
  }
  tables_.Release(kPages);
  co_return status;
}

void VhdxDisk::SetBits(const Piece& piece, MetadataStore::Page& bitmap) {
  const uint32_t first = BitOf(piece.offset);
  const auto last = first + static_cast<uint32_t>(piece.length >> sector_shift_);
  if (AllBits(bitmap.bytes, first, last, true)) return;
  FillBits(bitmap.bytes, first, last, true);
  tables_.MarkDirty(bitmap, Order::kAfterData);
}

void VhdxDisk::MakeFullIfComplete(uint64_t block, BatEntry entry, MetadataStore::Page& bat_page) {
  const uint64_t index = bat().BitmapIndex(bat().ChunkOf(block));
  const MetadataStore::Page* entry_page = tables_.Find(bat().PageOffset(index));
  if (entry_page == nullptr) return;
  const BatEntry bitmap_entry(entry_page->Load64(BatLayout::Slot(index)));
  const uint64_t end = (block + 1) << block_shift_;
  for (uint64_t at = block << block_shift_; at < end; at = BitmapPageEnd(at)) {
    const absl::StatusOr<uint64_t> page_offset = BitmapPageOffset(at, bitmap_entry);
    if (!page_offset.ok()) return;
    const MetadataStore::Page* bitmap = tables_.Find(*page_offset);
    if (bitmap == nullptr) return;
    const uint32_t first = BitOf(at);
    const auto count =
        static_cast<uint32_t>((std::min(end, BitmapPageEnd(at)) - at) >> sector_shift_);
    if (!AllBits(bitmap->bytes, first, first + count, true)) return;
  }
  const BatEntry made(BlockState::kFullyPresent, entry.file_offset());
  bat_page.Store64(BatLayout::Slot(bat().PayloadIndex(block)), made.bits());
  tables_.MarkDirty(bat_page, Order::kAfterData);
}

}  // namespace bothy::disk::vhdx
