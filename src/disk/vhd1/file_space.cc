#include "disk/vhd1/file_space.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "disk/damage.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {
namespace {

// Slack made at once. It takes no room in a sparse file.
constexpr uint64_t kSlackBytes = 64 << 20;
// Freed blocks made available at once when one is needed.
constexpr size_t kReclaimedAtOnce = 64;

uint64_t RoundUp(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

FileSpace::FileSpace(Storage& storage, const Image& image, BlockTable& table,
                     const InFlightList& in_flight)
    : storage_(storage),
      image_(image),
      table_(table),
      in_flight_(in_flight),
      span_(image.block_span()),
      footer_offset_(image.footer_offset) {}

uint32_t FileSpace::Take() {
  if (!scanned_) return BlockTable::kUnused;
  if (!ready_.empty()) {
    const uint32_t location = ready_.back();
    ready_.pop_back();
    return location;
  }
  const uint64_t offset = image_.AlignBlock(data_end_);
  if (offset + span_ > zero_end_) return BlockTable::kUnused;
  data_end_ = offset + span_;
  return static_cast<uint32_t>(offset / kSectorBytes);
}

void FileSpace::Free(uint32_t location) {
  freed_.push_back({.location = location, .number = in_flight_.next_number()});
}

void FileSpace::BeginCommit() {
  committing_.insert(committing_.end(), freed_.begin(), freed_.end());
  freed_.clear();
}

void FileSpace::EndCommit(bool durable) {
  if (durable) {
    reclaimable_.insert(reclaimable_.end(), committing_.begin(), committing_.end());
  } else {
    freed_.insert(freed_.end(), committing_.begin(), committing_.end());
  }
  committing_.clear();
}

Task<absl::Status> FileSpace::Reclaim(size_t most) {
  if (reclaiming_) co_return absl::OkStatus();
  reclaiming_ = true;
  absl::Status status;
  for (; most != 0 && status.ok() && !reclaimable_.empty() &&
         in_flight_.EndedBefore(reclaimable_.front().number);
       --most) {
    const uint32_t location = reclaimable_.front().location;
    status = co_await WriteZeroes(storage_, location * kSectorBytes, span_);
    if (!status.ok()) break;
    reclaimable_.pop_front();
    ready_.push_back(location);
  }
  reclaiming_ = false;
  co_return status;
}

Task<absl::Status> FileSpace::Grow() {
  if (growing_) {
    co_await grown_.Wait();
    co_return grow_status_;
  }
  growing_ = true;
  absl::Status status = co_await GrowOnce();
  growing_ = false;
  grow_status_ = status;
  grown_.WakeAll();
  co_return status;
}

Task<absl::Status> FileSpace::GrowOnce() {
  if (!scanned_) {
    absl::Status status = co_await Scan();
    CO_RETURN_IF_ERROR(status);
    status = co_await TakeLeftoverSlack();
    CO_RETURN_IF_ERROR(status);
    scanned_ = true;
  }
  if (ready_.empty()) {
    // Where that fails there may still be room behind.
    const absl::Status reclaimed = co_await Reclaim(kReclaimedAtOnce);
    static_cast<void>(reclaimed);
  }
  if (!ready_.empty()) co_return absl::OkStatus();
  const uint64_t begin = image_.AlignBlock(data_end_);
  if (begin + span_ <= zero_end_) co_return absl::OkStatus();
  if (begin + span_ > kMaxFileBytes) {
    co_return absl::ResourceExhaustedError(
        absl::StrCat("the file can't be larger than ", kMaxFileBytes, " bytes"));
  }
  // A small image grows by a part of itself, a large one by no more than kSlackBytes.
  const uint64_t stride = image_.AlignBlock(begin + span_) - begin;
  const uint64_t slack = std::min(kSlackBytes, begin);
  const uint64_t more =
      std::min(std::max<uint64_t>(slack / stride, 1), (kMaxFileBytes - begin) / stride);
  absl::Status status = co_await MoveFooter(begin + std::max<uint64_t>(more, 1) * stride);
  co_return status;
}

Task<absl::Status> FileSpace::Scan() {
  uint64_t end = std::max(image_.table_end(), image_.footer.data_offset + kDynamicHeaderBytes);
  for (const LocatorEntry& entry : image_.header->locators) {
    // Whatever an image claims: what lies past the footer isn't there.
    const uint64_t room = std::max<uint64_t>(entry.room_bytes(), entry.data_length);
    if (entry.platform_code == 0 || entry.data_offset > footer_offset_) continue;
    if (room <= footer_offset_ - entry.data_offset) end = std::max(end, entry.data_offset + room);
  }
  std::vector<uint32_t> locations;
  absl::Status damage;
  const auto look = [this, &locations, &damage](uint32_t block, uint32_t location) {
    const uint64_t offset = location * kSectorBytes;
    if (offset + span_ <= storage_.size() && !image_.OverlapsMetadata(offset, span_)) {
      locations.push_back(location);
    } else if (damage.ok()) {
      // Growing the file would let such a block turn into one that is another's.
      damage = Damaged(table_.EntryOffset(block), absl::StrCat("BAT[", block, "]"),
                       absl::StrCat("a block at ", offset, " isn't within the file; repair it"));
    }
  };
  absl::Status status = co_await table_.ForEachInFile(look);
  CO_RETURN_IF_ERROR(status);
  CO_RETURN_IF_ERROR(damage);
  // Freed blocks, whose entries may be gone from the file: the lists have them already.
  locations.insert(locations.end(), ready_.begin(), ready_.end());
  for (const Freed& freed : freed_) locations.push_back(freed.location);
  for (const Freed& freed : committing_) locations.push_back(freed.location);
  for (const Freed& freed : reclaimable_) locations.push_back(freed.location);
  FindHoles(locations, end);
  co_return absl::OkStatus();
}

// Room between blocks that an earlier session's discards left.
void FileSpace::FindHoles(std::vector<uint32_t>& locations, uint64_t end) {
  std::ranges::sort(locations);
  // A table that isn't before the blocks hides holes: what is before it isn't looked at.
  for (const uint32_t location : locations) {
    const uint64_t block = location * kSectorBytes;
    for (uint64_t hole = image_.AlignBlock(end); hole + span_ <= block;
         hole = image_.AlignBlock(hole + span_)) {
      reclaimable_.push_back({.location = static_cast<uint32_t>(hole / kSectorBytes), .number = 0});
    }
    end = std::max(end, block + span_);
  }
  data_end_ = RoundUp(end, kSectorBytes);
}

// What lies between the last block and the footer was never used, or it was by blocks that a crash
// took back.
Task<absl::Status> FileSpace::TakeLeftoverSlack() {
  zero_end_ = data_end_;
  const uint64_t slack_end = image_.last_footer_good ? footer_offset_ : storage_.size();
  if (slack_end < data_end_) {
    // The last block reaches over the footer's place, which is where a footer was before a crash.
    footer_offset_ = data_end_;
    co_return absl::OkStatus();
  }
  if (slack_end == data_end_) co_return absl::OkStatus();
  absl::Status status = co_await WriteZeroes(storage_, data_end_, slack_end - data_end_);
  CO_RETURN_IF_ERROR(status);
  zero_end_ = slack_end;
  co_return absl::OkStatus();
}

Task<absl::Status> FileSpace::MoveFooter(uint64_t slack_end) {
  const uint64_t old_size = storage_.size();
  const auto bytes = image_.footer.Encode();
  const std::span<const uint8_t> footer(bytes);
  // A file that lost its footer may be longer already.
  slack_end = std::max(slack_end, RoundUp(old_size, kSectorBytes));
  absl::Status status = co_await storage_.Resize(slack_end + kFooterBytes);
  if (status.ok()) status = co_await WriteAt(storage_, slack_end, footer);
  if (status.ok()) status = co_await Flush(storage_);
  if (!status.ok()) {
    // The old footer is still where it was; without this it would no longer be the last.
    absl::Status undone = co_await storage_.Resize(old_size);
    co_return undone.ok() ? status : undone;
  }
  footer_offset_ = slack_end;
  // The old footer, and what an attempt that failed here left before it.
  if (old_size > zero_end_) {
    status = co_await WriteZeroes(storage_, zero_end_, old_size - zero_end_);
    CO_RETURN_IF_ERROR(status);
  }
  zero_end_ = slack_end;
  co_return absl::OkStatus();
}

Task<absl::Status> FileSpace::Trim() {
  if (!scanned_) {
    // Nothing was added; what was freed may be at the end.
    if (ready_.empty()) co_return absl::OkStatus();
    absl::Status scanned = co_await Scan();
    CO_RETURN_IF_ERROR(scanned);
  }
  std::ranges::sort(ready_);
  uint64_t end = data_end_;
  while (!ready_.empty() && ready_.back() * kSectorBytes + span_ == end) {
    // What is before it may be the alignment's gap, in which nothing is.
    end = ready_.back() * kSectorBytes;
    ready_.pop_back();
    if (!ready_.empty() && image_.AlignBlock(ready_.back() * kSectorBytes + span_) == end) {
      end = ready_.back() * kSectorBytes + span_;
    }
  }
  data_end_ = end;
  if (footer_offset_ <= data_end_) co_return absl::OkStatus();
  const auto bytes = image_.footer.Encode();
  const std::span<const uint8_t> footer(bytes);
  absl::Status status = co_await WriteAt(storage_, data_end_, footer);
  CO_RETURN_IF_ERROR(status);
  status = co_await Flush(storage_);
  CO_RETURN_IF_ERROR(status);
  status = co_await storage_.Resize(data_end_ + kFooterBytes);
  CO_RETURN_IF_ERROR(status);
  footer_offset_ = data_end_;
  zero_end_ = data_end_;
  co_return co_await Flush(storage_);
}

}  // namespace bothy::disk::vhd1
