// VhdxDisk: cutting requests into pieces, and reading what takes more than one look.
#include "disk/buffers.h"
#include "disk/vhdx/sector_bitmap.h"
#include "disk/vhdx/vhdx_disk.h"
#include "support/check.h"

namespace bothy::disk::vhdx {
namespace {

// Of one request, that run at the same time.
constexpr size_t kMaxPieces = 32;

}  // namespace

Task<absl::Status> VhdxDisk::Serve(const Request& request) {
  if (request.operation == Operation::kFlush) co_return co_await ServeFlush();
  if (request.length == 0) co_return absl::OkStatus();
  if (request.operation != Operation::kRead) {
    absl::Status status = co_await BeginChanges();
    CO_RETURN_IF_ERROR(status);
  }
  if (request.operation == Operation::kRead || request.operation == Operation::kWrite) {
    co_return co_await ServePieces(request);
  }
  co_return co_await ServeZeroing(request);
}

Task<absl::Status> VhdxDisk::ServeFlush() {
  absl::Status status = co_await tables_.Commit();
  co_return file_->AnswerFlush(std::move(status));
}

Task<absl::Status> VhdxDisk::ServePieces(const Request& request) {
  Gather pieces;
  const uint64_t end = request.offset + request.length;
  size_t count = 0;
  for (uint64_t at = request.offset; at < end;) {
    uint64_t next = std::min(end, BlockEnd(at));
    if (has_parent()) next = std::min(next, BitmapPageEnd(at));
    const Piece piece = {.request = &request, .offset = at, .length = next - at};
    pieces.AddTask();
    Start(ServePiece(piece), [&pieces](absl::Status status) { pieces.Done(std::move(status)); });
    at = next;
    if (++count % kMaxPieces == 0) {
      absl::Status status = co_await pieces.Wait();
      CO_RETURN_IF_ERROR(status);
    }
  }
  co_return co_await pieces.Wait();
}

Task<absl::Status> VhdxDisk::ServePiece(Piece piece) {
  if (piece.request->operation == Operation::kRead) co_return co_await ReadPiece(piece);
  co_return co_await WritePiece(piece);
}

Task<absl::StatusOr<VhdxDisk::Entries>> VhdxDisk::LoadEntries(uint64_t block) {
  Entries entries;
  const uint64_t index = bat().PayloadIndex(block);
  absl::StatusOr<MetadataStore::PageRef> page = co_await LoadBatPage(index);
  CO_ASSIGN_OR_RETURN(entries.page, page);
  entries.slot = BatLayout::Slot(index);
  if (has_parent()) {
    const uint64_t bitmap_index = bat().BitmapIndex(bat().ChunkOf(block));
    absl::StatusOr<MetadataStore::PageRef> other = co_await LoadBatPage(bitmap_index);
    CO_ASSIGN_OR_RETURN(entries.bitmap_entry_page, other);
    entries.bitmap_slot = BatLayout::Slot(bitmap_index);
  }
  CO_RETURN_IF_ERROR(CheckEntry(index, entries.entry()));
  co_return entries;
}

Task<absl::StatusOr<MetadataStore::PageRef>> VhdxDisk::LoadBitmap(const Entries& entries,
                                                                  uint64_t offset) {
  const absl::StatusOr<uint64_t> page_offset = BitmapPageOffset(offset, entries.bitmap_entry());
  CO_RETURN_IF_ERROR(page_offset.status());
  co_return co_await tables_.Load(*page_offset);
}

Task<absl::Status> VhdxDisk::ReadPiece(Piece piece) {
  const Request& request = *piece.request;
  const uint64_t skip = piece.offset - request.offset;
  absl::StatusOr<Entries> entries = co_await LoadEntries(BlockOf(piece.offset));
  CO_RETURN_IF_ERROR(entries.status());
  MetadataStore::PageRef bitmap;
  if (entries->entry().state() == BlockState::kPartiallyPresent) {
    absl::StatusOr<MetadataStore::PageRef> loaded = co_await LoadBitmap(*entries, piece.offset);
    CO_ASSIGN_OR_RETURN(bitmap, loaded);
  }
  // From here to the submission of the reads nothing waits, so that the tables say what is so.
  const BatEntry entry = entries->entry();
  Gather reads;
  const InEpoch in_epoch(epochs_);
  switch (entry.state()) {
    case BlockState::kFullyPresent:
      PassOn(piece, entry.file_offset(), reads);
      break;
    case BlockState::kPartiallyPresent:
      CO_RETURN_IF_ERROR(ReadRuns(piece, entry, *bitmap, reads));
      break;
    case BlockState::kNotPresent:
      if (parent_ != nullptr) {
        ReadParent(piece, reads);
        break;
      }
      [[fallthrough]];
    default:
      FillZero(request.buffers, skip, piece.length);
  }
  co_return co_await reads.Wait();
}

absl::Status VhdxDisk::ReadRuns(const Piece& piece, BatEntry entry,
                                const MetadataStore::Page& bitmap, Gather& reads) {
  const uint64_t end = piece.offset + piece.length;
  for (uint64_t at = piece.offset; at < end;) {
    const uint32_t first = BitOf(at);
    const auto last = first + static_cast<uint32_t>((end - at) >> sector_shift_);
    bool here = false;
    const uint64_t length = uint64_t{BitRun(bitmap.bytes, first, last, here)} << sector_shift_;
    const Piece run = {.request = piece.request, .offset = at, .length = length};
    if (here) {
      PassOn(run, entry.file_offset(), reads);
    } else {
      ReadParent(run, reads);
    }
    at += length;
  }
  return absl::OkStatus();
}

void VhdxDisk::ReadParent(const Piece& piece, Gather& reads) {
  const Request& request = *piece.request;
  const uint64_t skip = piece.offset - request.offset;
  const uint64_t there =
      std::min(piece.length, parent_bytes_ - std::min(parent_bytes_, piece.offset));
  // Past the end of a smaller parent there are zeros.
  if (there < piece.length) FillZero(request.buffers, skip + there, piece.length - there);
  if (there == 0) return;
  reads.Add(*parent_, Operation::kRead, piece.offset, there, Slice(request.buffers, skip, there));
}

void VhdxDisk::PassOn(const Piece& piece, uint64_t block_offset, Gather& io) {
  const Request& request = *piece.request;
  const bool data = request.operation == Operation::kRead || request.operation == Operation::kWrite;
  std::vector<iovec> buffers;
  if (data) buffers = Slice(request.buffers, piece.offset - request.offset, piece.length);
  io.Add(storage_, request.operation, block_offset + WithinBlock(piece.offset), piece.length,
         std::move(buffers), request.may_deallocate && !keeps_space());
}

}  // namespace bothy::disk::vhdx
