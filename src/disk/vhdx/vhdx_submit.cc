// VhdxDisk: what happens within Submit.
#include <utility>

#include "disk/buffers.h"
#include "disk/vhdx/sector_bitmap.h"
#include "disk/vhdx/vhdx_disk.h"
#include "support/check.h"

namespace bothy::disk::vhdx {

// For a flush, `ticket_` instead of an epoch.
void VhdxDisk::Forwarded::Begin(Request& of) {
  of_ = &of;
  operation = of.operation;
  length = of.length;
  buffers = of.buffers;
  if (operation == Operation::kFlush) {
    ticket_ = disk_.tables_.BeginFlush();
  } else {
    epoch_ = disk_.epochs_.Enter();
  }
}

void VhdxDisk::Forwarded::Complete(absl::Status status) {
  if (operation == Operation::kFlush) {
    disk_.tables_.EndFlush(ticket_, status);
    status = disk_.file_->AnswerFlush(std::move(status));
  } else {
    disk_.epochs_.Leave(epoch_);
    if (disk_.space_.waiting()) disk_.space_.Poll();
  }
  Request& of = *of_;
  disk_.idle_forwarded_.push_back(this);
  of.Complete(std::move(status));
}

void VhdxDisk::Submit(Request& request) {
  if (absl::Status status = CheckRequest(geometry_, request); !status.ok()) {
    return request.Complete(WithContext(status, path()));
  }
  switch (request.operation) {
    case Operation::kRead:
      if (TryRead(request)) return;
      break;
    case Operation::kWrite:
      if (TryWrite(request)) return;
      break;
    case Operation::kFlush:
      if (TryFlush(request)) return;
      break;
    case Operation::kDiscard:
    case Operation::kWriteZeroes:
      break;
  }
  Start(Serve(request), [this, &request](const absl::Status& status) {
    if (space_.waiting()) space_.Poll();
    request.Complete(WithContext(status, path()));
  });
}

void VhdxDisk::Forward(Request& request, uint64_t file_offset) {
  if (idle_forwarded_.empty()) {
    forwarded_.push_back(std::make_unique<Forwarded>(*this));
    idle_forwarded_.reserve(forwarded_.size());
    idle_forwarded_.push_back(forwarded_.back().get());
  }
  Forwarded& forwarded = *idle_forwarded_.back();
  idle_forwarded_.pop_back();
  forwarded.Begin(request);
  forwarded.offset = file_offset;
  storage_.Submit(forwarded);
}

bool VhdxDisk::TryRead(Request& request) {
  const uint64_t within = WithinBlock(request.offset);
  if (request.length == 0 || within + request.length > block_bytes_) return false;
  const uint64_t index = bat().PayloadIndex(BlockOf(request.offset));
  const MetadataStore::Page* page = tables_.Find(bat().PageOffset(index));
  if (page == nullptr) return false;
  const BatEntry entry(page->Load64(BatLayout::Slot(index)));
  switch (entry.state()) {
    case BlockState::kFullyPresent:
      if (!IsSound(entry)) return false;
      Forward(request, entry.file_offset() + within);
      return true;
    case BlockState::kNotPresent:
      if (parent_ != nullptr) return TryReadParent(request);
      [[fallthrough]];
    case BlockState::kUndefined:
    case BlockState::kZero:
    case BlockState::kUnmapped:
      FillZero(request.buffers, 0, request.length);
      request.Complete(absl::OkStatus());
      return true;
    case BlockState::kPartiallyPresent:
      break;
  }
  if (entry.state() != BlockState::kPartiallyPresent) return false;
  switch (FindPartialRun(request, entry)) {
    case Run::kHere:
      Forward(request, entry.file_offset() + within);
      return true;
    case Run::kParent:
      return TryReadParent(request);
    case Run::kUnknown:
      break;
  }
  return false;
}

bool VhdxDisk::TryReadParent(Request& request) {
  if (request.offset + request.length > parent_bytes_) return false;
  // The same bytes of another disk: the very same request.
  parent_->Submit(request);
  return true;
}

VhdxDisk::Run VhdxDisk::FindPartialRun(const Request& request, BatEntry entry) {
  const uint64_t end = request.offset + request.length;
  if (!has_parent() || !IsSound(entry) || end > BitmapPageEnd(request.offset)) {
    return Run::kUnknown;
  }
  const uint64_t index = bat().BitmapIndex(bat().ChunkOf(BlockOf(request.offset)));
  const MetadataStore::Page* bat_page = tables_.Find(bat().PageOffset(index));
  if (bat_page == nullptr) return Run::kUnknown;
  const BatEntry bitmap_entry(bat_page->Load64(BatLayout::Slot(index)));
  const absl::StatusOr<uint64_t> page_offset = BitmapPageOffset(request.offset, bitmap_entry);
  if (!page_offset.ok()) return Run::kUnknown;
  const MetadataStore::Page* bitmap = tables_.Find(*page_offset);
  if (bitmap == nullptr) return Run::kUnknown;
  const uint32_t first = BitOf(request.offset);
  const uint32_t last = first + static_cast<uint32_t>(request.length >> sector_shift_);
  bool here = false;
  if (BitRun(bitmap->bytes, first, last, here) != last - first) return Run::kUnknown;
  return here ? Run::kHere : Run::kParent;
}

bool VhdxDisk::TryWrite(Request& request) {
  const uint64_t within = WithinBlock(request.offset);
  if (!changes_begun_ || request.length == 0 || within + request.length > block_bytes_) {
    return false;
  }
  const uint64_t index = bat().PayloadIndex(BlockOf(request.offset));
  MetadataStore::Page* page = tables_.Find(bat().PageOffset(index));
  if (page == nullptr) return false;
  BatEntry entry(page->Load64(BatLayout::Slot(index)));
  switch (entry.state()) {
    case BlockState::kFullyPresent:
      if (!IsSound(entry)) return false;
      break;
    case BlockState::kPartiallyPresent:
      if (FindPartialRun(request, entry) != Run::kHere) return false;
      break;
    case BlockState::kNotPresent:
      if (parent_ != nullptr) return false;
      [[fallthrough]];
    case BlockState::kUndefined:
    case BlockState::kZero:
    case BlockState::kUnmapped: {
      const std::optional<BatEntry> allocated = TryAllocate(*page, BatLayout::Slot(index));
      if (!allocated.has_value()) return false;
      entry = *allocated;
      break;
    }
    default:
      return false;
  }
  Forward(request, entry.file_offset() + within);
  return true;
}

std::optional<BatEntry> VhdxDisk::TryAllocate(MetadataStore::Page& page, uint32_t slot) {
  const bool reserved = !page.held();
  if (reserved && !tables_.TryReserve(1)) return std::nullopt;
  std::optional<BatEntry> entry;
  if (const std::optional<SpaceAllocator::Space> space = space_.TryTakeBlock()) {
    entry = BatEntry(BlockState::kFullyPresent, space->offset);
    page.Store64(slot, entry->bits());
    tables_.MarkDirty(
        page, space->used_before ? MetadataStore::Order::kAfterData : MetadataStore::Order::kAny);
  }
  if (reserved) tables_.Release(1);
  return entry;
}

bool VhdxDisk::TryFlush(Request& request) {
  if (!changes_begun_) {
    // Nothing of ours can be waiting in the host.
    request.Complete(file_->AnswerFlush(absl::OkStatus()));
    return true;
  }
  if (tables_.needs_commit()) return false;
  Forward(request, 0);
  return true;
}

}  // namespace bothy::disk::vhdx
