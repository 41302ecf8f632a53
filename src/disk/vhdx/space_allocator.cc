#include "disk/vhdx/space_allocator.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "disk/vhdx/format.h"
#include "support/check.h"

namespace bothy::disk::vhdx {
namespace {

// How far the file is grown ahead: what a crash leaves at its end, as a hole.
constexpr uint64_t kMinGrowth = 64 * kMiB;
constexpr uint64_t kMaxGrowth = 1024 * kMiB;
// Blocks that may wait for a commit that nobody asks for.
constexpr size_t kMaxWaiting = 64;

}  // namespace

SpaceAllocator::SpaceAllocator(Storage& storage, MetadataStore& tables, IoEpochs& epochs,
                               uint32_t block_bytes, uint64_t first_free)
    : storage_(storage),
      tables_(tables),
      epochs_(epochs),
      block_bytes_(block_bytes),
      end_(RoundUp(std::max(first_free, storage.size()), kAlignment)),
      file_bytes_(storage.size()) {
  tables_.set_structures_end(end_);
}

SpaceAllocator::~SpaceAllocator() { CHECK(!growing_ && zeroing_ == 0); }

std::optional<SpaceAllocator::Space> SpaceAllocator::TryTakeBlock() {
  if (!free_.empty()) {
    const Space space = {.offset = free_.back(), .used_before = true};
    free_.pop_back();
    return space;
  }
  return TryTakeNew(block_bytes_);
}

std::optional<SpaceAllocator::Space> SpaceAllocator::TryTakeNew(uint64_t bytes) {
  if (end_ + bytes > file_bytes_) return std::nullopt;
  const Space space = {.offset = end_, .used_before = false};
  end_ += bytes;
  tables_.set_structures_end(end_);
  return space;
}

Task<absl::Status> SpaceAllocator::Grow(uint64_t bytes) {
  if (growing_) {
    // The caller tries again, and comes back if that wasn't enough or didn't succeed.
    co_await grown_waiters_.Wait();
    co_return absl::OkStatus();
  }
  const uint64_t least = end_ + bytes;
  if (least <= file_bytes_) co_return absl::OkStatus();
  if (least > kMaxFileBytes) {
    co_return absl::ResourceExhaustedError(
        absl::StrCat(storage_.path(), ": can't grow over ", kMaxFileBytes, " bytes"));
  }
  growing_ = true;
  const uint64_t ahead = std::clamp(RoundUp(end_ / 8, kMiB), kMinGrowth, kMaxGrowth);
  uint64_t size = least + ahead;
  absl::Status status = co_await storage_.Resize(size);
  if (!status.ok()) {
    size = least;
    status = co_await storage_.Resize(size);
  }
  if (status.ok()) {
    file_bytes_ = size;
    grown_ = true;
  }
  growing_ = false;
  grown_waiters_.WakeAll();
  co_return status;
}

void SpaceAllocator::Free(uint64_t offset, uint64_t generation) {
  waiting_.push_back({.offset = offset, .generation = generation, .epoch = epochs_.Next()});
  Poll();
  if (waiting_.size() >= kMaxWaiting) tables_.StartCommit();
}

void SpaceAllocator::Poll() {
  while (!waiting_.empty() && waiting_.front().generation <= tables_.durable_generation() &&
         epochs_.over(waiting_.front().epoch)) {
    const uint64_t offset = waiting_.front().offset;
    waiting_.pop_front();
    ++zeroing_;
    Start(Zero(offset), [this, offset](const absl::Status& status) {
      // Space that can't be zeroed is lost until a repair.
      if (status.ok()) free_.push_back(offset);
      if (--zeroing_ == 0) zeroed_.WakeAll();
    });
  }
}

Task<absl::Status> SpaceAllocator::Zero(uint64_t offset) {
  co_return co_await WriteZeroes(storage_, offset, block_bytes_);
}

Task<absl::Status> SpaceAllocator::WaitUntilIdle() {
  Poll();
  while (zeroing_ > 0) co_await zeroed_.Wait();
  co_return absl::OkStatus();
}

Task<absl::Status> SpaceAllocator::Cut() {
  const uint64_t before = end_;
  std::ranges::sort(free_, std::greater());
  for (const uint64_t offset : free_) {
    if (offset + block_bytes_ != end_) break;
    end_ = offset;
  }
  std::erase_if(free_, [this](uint64_t offset) { return offset >= end_; });
  // What is at the end of a file that wasn't grown here may be somebody's.
  if ((!grown_ && end_ == before) || end_ >= file_bytes_) co_return absl::OkStatus();
  absl::Status status = co_await storage_.Resize(end_);
  if (status.ok()) file_bytes_ = end_;
  co_return status;
}

}  // namespace bothy::disk::vhdx
