// VhdxDisk: discarding and writing zeros.
#include "disk/vhdx/vhdx_disk.h"

namespace bothy::disk::vhdx {

Task<absl::Status> VhdxDisk::ServeZeroing(const Request& request) {
  const uint64_t end = request.offset + request.length;
  MetadataStore::PageRef page;
  uint64_t page_offset = 0;
  for (uint64_t at = request.offset; at < end;) {
    const uint64_t next = std::min(end, BlockEnd(at));
    const Piece piece = {.request = &request, .offset = at, .length = next - at};
    at = next;
    const uint64_t index = bat().PayloadIndex(BlockOf(piece.offset));
    if (page_offset != bat().PageOffset(index)) {
      absl::StatusOr<MetadataStore::PageRef> loaded = co_await LoadBatPage(index);
      CO_ASSIGN_OR_RETURN(page, loaded);
      page_offset = bat().PageOffset(index);
    }
    const BatEntry entry(page->Load64(BatLayout::Slot(index)));
    if (HowToZero(piece, entry) == Zeroing::kNothing) continue;
    absl::Status status = co_await ZeroBlock(piece);
    CO_RETURN_IF_ERROR(status);
  }
  co_return absl::OkStatus();
}

VhdxDisk::Zeroing VhdxDisk::HowToZero(const Piece& piece, BatEntry entry) const {
  const Request& request = *piece.request;
  const bool discard = request.operation == Operation::kDiscard;
  if (discard && keeps_space()) return Zeroing::kNothing;
  const bool whole =
      WithinBlock(piece.offset) == 0 && piece.offset + piece.length == BlockEnd(piece.offset);
  switch (entry.state()) {
    case BlockState::kZero:
      return Zeroing::kNothing;
    case BlockState::kNotPresent:
      if (discard || !has_parent()) return Zeroing::kNothing;
      return whole ? Zeroing::kFree : Zeroing::kPart;
    case BlockState::kUndefined:
    case BlockState::kUnmapped:
      // It reads as zero here, but needn't elsewhere.
      return discard ? Zeroing::kNothing : Zeroing::kFree;
    case BlockState::kPartiallyPresent:
    case BlockState::kFullyPresent:
    default:
      const bool may_free = discard || request.may_deallocate;
      return whole && may_free && !keeps_space() ? Zeroing::kFree : Zeroing::kPart;
  }
}

Task<absl::Status> VhdxDisk::ZeroBlock(Piece piece) {
  const uint64_t block = BlockOf(piece.offset);
  absl::StatusOr<Entries> entries = co_await LoadEntries(block);
  CO_RETURN_IF_ERROR(entries.status());
  const bool discard = piece.request->operation == Operation::kDiscard;
  switch (HowToZero(piece, entries->entry())) {
    case Zeroing::kNothing:
      co_return absl::OkStatus();
    case Zeroing::kFree:
      co_return co_await Free(block, discard ? BlockState::kUnmapped : BlockState::kZero);
    case Zeroing::kPart:
      break;
  }
  if (!discard) co_return co_await ZeroPart(piece);
  // Where the sectors are, or would be: what they read as afterwards is no matter.
  Gather discards;
  const InEpoch in_epoch(epochs_);
  PassOn(piece, entries->entry().file_offset(), discards);
  absl::Status status = co_await discards.Wait();
  co_return absl::IsUnimplemented(status) ? absl::OkStatus() : status;
}

Task<absl::Status> VhdxDisk::ZeroPart(Piece piece) {
  const uint64_t end = piece.offset + piece.length;
  while (piece.offset < end) {
    piece.length = (has_parent() ? std::min(end, BitmapPageEnd(piece.offset)) : end) - piece.offset;
    absl::Status status = co_await WritePiece(piece);
    CO_RETURN_IF_ERROR(status);
    piece.offset += piece.length;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> VhdxDisk::Free(uint64_t block, BlockState state) {
  absl::Status status = co_await tables_.Reserve(1);
  CO_RETURN_IF_ERROR(status);
  absl::StatusOr<Entries> entries = co_await LoadEntries(block);
  if (entries.ok()) {
    const BatEntry before = entries->entry();
    entries->page->Store64(entries->slot, BatEntry(state, 0).bits());
    // Of the commit that makes this durable, which MarkDirty may begin.
    const uint64_t generation = tables_.next_generation();
    tables_.MarkDirty(*entries->page, MetadataStore::Order::kAny);
    if (before.present()) space_.Free(before.file_offset(), generation);
  }
  tables_.Release(1);
  co_return entries.status();
}

}  // namespace bothy::disk::vhdx
