#include "disk/vhd1/dynamic_disk.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "disk/buffers.h"
#include "disk/damage.h"
#include "disk/vhd1/fixed_disk.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {
namespace {

// Requests of one request.
constexpr size_t kPartsInFlight = 64;

}  // namespace

DynamicDisk::DynamicDisk(std::unique_ptr<Storage> storage, const Image& image,
                         std::unique_ptr<Disk> parent, std::vector<std::string> parent_spellings,
                         bool read_only, uint32_t cache_bytes)
    : owned_storage_(std::move(storage)),
      storage_(*owned_storage_),
      image_(image),
      parent_(std::move(parent)),
      parent_spellings_(std::move(parent_spellings)),
      geometry_(MakeGeometry(storage_, image_, read_only)),
      block_bytes_(image_.header->block_size),
      bitmap_bytes_(image_.header->bitmap_bytes()),
      table_(storage_, image_.header->table_offset, image_.blocks()),
      bitmaps_(bitmap_bytes_, static_cast<uint32_t>(block_bytes_ / kSectorBytes), cache_bytes),
      space_(storage_, image_, table_, in_flight_) {}

DynamicDisk::~DynamicDisk() { CHECK(in_flight_.EndedBefore(in_flight_.next_number())); }

void DynamicDisk::Submit(Request& request) {
  absl::Status status = CheckRequest(geometry_, request);
  if (!status.ok() || (request.operation != Operation::kFlush && request.length == 0)) {
    return request.Complete(std::move(status));
  }
  if (request.operation == Operation::kFlush && geometry_.read_only) {
    return request.Complete(absl::OkStatus());
  }
  if (Forward(request)) return;
  Start(Perform(request), [&request](absl::Status result) { request.Complete(std::move(result)); });
}

// The common case, without a coroutine: a block that is wholly there.
bool DynamicDisk::Forward(Request& request) {
  if (request.operation != Operation::kRead && request.operation != Operation::kWrite) return false;
  const Piece piece = PieceAt(request, 0);
  if (piece.length != request.length || !table_.IsLoaded(piece.block)) return false;
  if (!table_.complete(piece.block)) return false;
  if (unused_forwarded_.empty()) {
    forwarded_.push_back(std::make_unique<Forwarded>(*this));
    unused_forwarded_.push_back(forwarded_.back().get());
  }
  Forwarded& forwarded = *unused_forwarded_.back();
  unused_forwarded_.pop_back();
  forwarded.original = &request;
  forwarded.operation = request.operation;
  forwarded.offset = DataOffset(table_.location(piece.block), piece.within);
  forwarded.length = request.length;
  forwarded.buffers = request.buffers;
  in_flight_.Enter(forwarded.in_flight);
  storage_.Submit(forwarded);
  return true;
}

void DynamicDisk::Forwarded::Complete(absl::Status status) {
  Request* const done = original;
  disk.in_flight_.Leave(in_flight);
  disk.unused_forwarded_.push_back(this);
  done->Complete(std::move(status));
}

Task<absl::Status> DynamicDisk::Perform(Request& request) {
  if (request.operation == Operation::kFlush) {
    absl::Status status = co_await CommitForGuest();
    co_return status;
  }
  const InFlightList::Scope scope(in_flight_);
  absl::Status status;
  if (request.operation == Operation::kRead) {
    status = co_await Read(request);
  } else if (request.operation == Operation::kWrite) {
    status = co_await Write(request);
  } else {
    status = co_await DiscardOrZero(request);
  }
  co_return status;
}

DynamicDisk::Piece DynamicDisk::PieceAt(const Request& request, uint64_t done) const {
  const uint64_t at = request.offset + done;
  const uint64_t begin = at / block_bytes_ * block_bytes_;
  const uint64_t end = std::min(begin + block_bytes_, geometry_.size_bytes);
  Piece piece;
  piece.block = static_cast<uint32_t>(at / block_bytes_);
  piece.within = at - begin;
  piece.length = std::min(end - at, request.length - done);
  piece.requested = done;
  piece.whole = at == begin && piece.length == end - begin;
  return piece;
}

absl::Status DynamicDisk::CheckLocation(uint32_t block, uint32_t location) const {
  const uint64_t offset = location * kSectorBytes;
  const uint64_t span = image_.block_span();
  if (offset + span > storage_.size()) {
    return Damaged(
        table_.EntryOffset(block), absl::StrCat("BAT[", block, "]"),
        absl::StrCat("the block at ", offset, " ends past the file's end, ", storage_.size()));
  }
  if (image_.OverlapsMetadata(offset, span)) {
    return Damaged(table_.EntryOffset(block), absl::StrCat("BAT[", block, "]"),
                   absl::StrCat("the block at ", offset, " lies on the header or the table"));
  }
  return absl::OkStatus();
}

Task<absl::StatusOr<DynamicDisk::Placement>> DynamicDisk::Place(uint32_t block) {
  if (!table_.IsLoaded(block)) {
    absl::Status status = co_await table_.Load(block);
    CO_RETURN_IF_ERROR(status);
  }
  for (;;) {
    const Placement placement = {.location = table_.location(block),
                                 .complete = table_.complete(block)};
    if (!placement.present() || placement.complete || bitmaps_.Find(block) != nullptr) {
      co_return placement;
    }
    absl::Status status = CheckLocation(block, placement.location);
    if (status.ok()) status = co_await LoadBitmap(block, placement.location);
    // While it was read the block may have been freed, or have become complete.
    CO_RETURN_IF_ERROR(status);
  }
}

Task<absl::Status> DynamicDisk::LoadBitmap(uint32_t block, uint32_t location) {
  std::vector<uint8_t> bytes(bitmap_bytes_);
  const std::span<uint8_t> target(bytes);
  absl::Status status = co_await ReadAt(storage_, location * kSectorBytes, target);
  CO_RETURN_IF_ERROR(status);
  if (table_.location(block) != location || table_.complete(block) ||
      bitmaps_.Find(block) != nullptr) {
    co_return absl::OkStatus();
  }
  const Bitmap* bitmap = bitmaps_.Add(block, location, std::move(bytes));
  if (bitmap->AllSet()) {
    table_.SetComplete(block, true);
    bitmaps_.Erase(block);
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<DynamicDisk::Placement>> DynamicDisk::PlaceForWriting(uint32_t block) {
  for (;;) {
    absl::StatusOr<Placement> placed = co_await Place(block);
    CO_ASSIGN_OR_RETURN(Placement placement, placed);
    if (placement.present()) co_return placement;
    placement.location = space_.Take();
    if (placement.present()) {
      table_.Set(block, placement.location);
      placement.complete = parent_ == nullptr;
      table_.SetComplete(block, placement.complete);
      if (!placement.complete) bitmaps_.AddEmpty(block, placement.location);
      co_return placement;
    }
    // Meanwhile another request may give this block its room.
    absl::Status status = co_await space_.Grow();
    CO_RETURN_IF_ERROR(status);
  }
}

std::vector<DynamicDisk::Run> DynamicDisk::RunsOf(const Piece& piece) {
  const Bitmap* bitmap = bitmaps_.Find(piece.block);
  std::vector<Run> runs;
  const auto end = static_cast<uint32_t>((piece.within + piece.length) / kSectorBytes);
  for (auto at = static_cast<uint32_t>(piece.within / kSectorBytes); at < end;) {
    const uint32_t length = bitmap->Run(at, end);
    runs.push_back(
        {.within = at * kSectorBytes, .length = length * kSectorBytes, .present = bitmap->Get(at)});
    at += length;
  }
  return runs;
}

void DynamicDisk::ReadAbsent(FanOut& parts, std::span<const iovec> buffers, uint64_t offset,
                             uint64_t requested, uint64_t length) {
  uint64_t from_parent = 0;
  if (parent_ != nullptr) {
    const uint64_t parent_bytes = parent_->geometry().size_bytes;
    from_parent = std::min(length, parent_bytes - std::min(parent_bytes, offset));
  }
  if (from_parent != 0) {
    parts.Submit(*parent_, Operation::kRead, offset, Slice(buffers, requested, from_parent));
  }
  FillZero(buffers, requested + from_parent, length - from_parent);
}

Task<absl::Status> DynamicDisk::Read(Request& request) {
  FanOut parts;
  absl::Status status;
  for (uint64_t done = 0; done < request.length && status.ok();) {
    const Piece piece = PieceAt(request, done);
    done += piece.length;
    absl::StatusOr<Placement> placed = co_await Place(piece.block);
    status = placed.status();
    if (!status.ok()) break;
    const Placement placement = *placed;
    std::vector<Run> runs;
    if (placement.present() && !placement.complete) {
      runs = RunsOf(piece);
    } else {
      runs.push_back(
          {.within = piece.within, .length = piece.length, .present = placement.present()});
    }
    for (const Run& run : runs) {
      const uint64_t requested = piece.requested + run.within - piece.within;
      if (run.present) {
        parts.Submit(storage_, Operation::kRead, DataOffset(placement.location, run.within),
                     Slice(request.buffers, requested, run.length));
      } else {
        ReadAbsent(parts, request.buffers, request.offset + requested, requested, run.length);
      }
      co_await parts.AtMost(kPartsInFlight);
    }
  }
  co_await parts.AtMost(0);
  if (status.ok()) status = parts.status();
  co_return status;
}

Task<absl::Status> DynamicDisk::Write(Request& request) {
  FanOut parts;
  std::vector<Mark> marks;
  absl::Status status = co_await LimitUncommitted();
  for (uint64_t done = 0; done < request.length && status.ok();) {
    const Piece piece = PieceAt(request, done);
    done += piece.length;
    absl::StatusOr<Placement> placed = co_await PlaceForWriting(piece.block);
    status = placed.status();
    if (!status.ok()) break;
    if (!placed->complete) marks.push_back({.piece = piece, .location = placed->location});
    parts.Submit(storage_, Operation::kWrite, DataOffset(placed->location, piece.within),
                 Slice(request.buffers, piece.requested, piece.length));
    co_await parts.AtMost(kPartsInFlight);
  }
  co_await parts.AtMost(0);
  if (status.ok()) status = parts.status();
  if (status.ok()) status = co_await MarkPresent(marks);
  co_return status;
}

Task<absl::Status> DynamicDisk::MarkPresent(std::vector<Mark>& marks) {
  for (const Mark& mark : marks) {
    absl::StatusOr<Placement> placed = co_await Place(mark.piece.block);
    if (!placed.ok()) co_return placed.status();
    // A discard may have freed the block meanwhile; what was written is what it discarded.
    if (placed->location != mark.location || placed->complete) continue;
    Bitmap* bitmap = bitmaps_.Find(mark.piece.block);
    bitmaps_.SetRange(mark.piece.block, *bitmap,
                      static_cast<uint32_t>(mark.piece.within / kSectorBytes),
                      static_cast<uint32_t>(mark.piece.length / kSectorBytes));
    if (bitmap->AllSet()) table_.SetComplete(mark.piece.block, true);
  }
  co_return absl::OkStatus();
}

void DynamicDisk::FreeBlock(uint32_t block) {
  space_.Free(table_.location(block));
  table_.Set(block, BlockTable::kUnused);
  table_.SetComplete(block, false);
  bitmaps_.Erase(block);
}

Task<absl::Status> DynamicDisk::DiscardOrZero(Request& request) {
  const bool zero = request.operation == Operation::kWriteZeroes;
  FanOut parts;
  std::vector<Mark> marks;
  absl::Status status = co_await LimitUncommitted();
  for (uint64_t done = 0; done < request.length && status.ok();) {
    const Piece piece = PieceAt(request, done);
    done += piece.length;
    absl::StatusOr<Placement> placed = co_await Place(piece.block);
    status = placed.status();
    if (!status.ok()) break;
    Placement placement = *placed;
    // Without a parent what isn't there is zero. With one, only a block of zeros hides it.
    const bool must_be_there = zero && parent_ != nullptr;
    if (!placement.present() && !must_be_there) continue;
    if (piece.whole && !must_be_there && (!zero || request.may_deallocate)) {
      status = CheckLocation(piece.block, placement.location);
      if (status.ok()) FreeBlock(piece.block);
      continue;
    }
    placed = co_await PlaceForWriting(piece.block);
    status = placed.status();
    if (!status.ok()) break;
    placement = *placed;
    if (must_be_there && !placement.complete) {
      marks.push_back({.piece = piece, .location = placement.location});
    }
    parts.WriteZeroes(storage_, DataOffset(placement.location, piece.within), piece.length,
                      !zero || request.may_deallocate);
    co_await parts.AtMost(kPartsInFlight);
  }
  co_await parts.AtMost(0);
  if (status.ok()) status = parts.status();
  if (status.ok()) status = co_await MarkPresent(marks);
  co_return status;
}

}  // namespace bothy::disk::vhd1
