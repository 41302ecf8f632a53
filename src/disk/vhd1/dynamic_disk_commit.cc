// How changes of a dynamic image become durable: dynamic_disk.h tells the order.
#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "disk/vhd1/dynamic_disk.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {
namespace {

constexpr size_t kWritesInFlight = 64;
constexpr size_t kReclaimedAtOnce = 256;
// Changes of the table after which a commit begins by itself, and after which writes wait for it.
constexpr size_t kManyChanges = 512;
constexpr size_t kTooManyChanges = 2048;

}  // namespace

Task<absl::Status> DynamicDisk::LimitUncommitted() {
  const size_t bitmaps = bitmaps_.dirty();
  const size_t most_bitmaps = bitmaps_.most_dirty();
  if (table_.dirty() >= kTooManyChanges || bitmaps >= most_bitmaps) {
    absl::Status status = co_await Commit();
    co_return status;
  }
  if (!committing_ && (table_.dirty() >= kManyChanges || bitmaps >= most_bitmaps / 2)) {
    // What wasn't committed stays uncommitted, and of a flush that failed the next one will tell.
    Start(Commit(), [](const absl::Status&) {});
  }
  co_return absl::OkStatus();
}

Task<absl::Status> DynamicDisk::CommitForGuest() {
  absl::Status status = co_await Commit();
  co_return storage_.AnswerFlush(std::move(status));
}

Task<absl::Status> DynamicDisk::Commit() {
  // One that is under way may not see what is there now; the next one will.
  const uint64_t wanted = commits_begun_ + 1;
  while (committing_) {
    co_await commit_ended_.Wait();
    if (commits_ended_ >= wanted) co_return commit_status_;
  }
  committing_ = true;
  ++commits_begun_;
  absl::Status status = co_await RunCommit();
  commit_failed_ = !status.ok();
  commit_status_ = status;
  committing_ = false;
  commits_ended_ = commits_begun_;
  commit_ended_.WakeAll();
  co_return status;
}

Task<absl::Status> DynamicDisk::RunCommit() {
  const std::vector<BlockTable::Change> changes = table_.BeginCommit();
  const std::vector<BitmapCache::Change> bitmaps = bitmaps_.BeginCommit();
  space_.BeginCommit();
  const absl::Status status = co_await WriteCommit(changes, bitmaps);
  table_.EndCommit(status.ok());
  bitmaps_.EndCommit(bitmaps, status.ok());
  space_.EndCommit(status.ok());
  if (status.ok()) {
    // An error here costs room and nothing else; it is tried again after the next commit.
    const absl::Status reclaimed = co_await space_.Reclaim(kReclaimedAtOnce);
    static_cast<void>(reclaimed);
  }
  co_return status;
}

Task<absl::Status> DynamicDisk::WriteCommit(const std::vector<BlockTable::Change>& changes,
                                            const std::vector<BitmapCache::Change>& bitmaps) {
  if (commit_failed_) {
    // Any part of the failed one may be in the file: a block counted as unreachable here may be
    // reachable already, and its data has to be there before its bitmap says so. All data that
    // these bitmaps tell of was written by now.
    absl::Status status = co_await Flush(storage_);
    CO_RETURN_IF_ERROR(status);
  }
  FanOut writes;
  absl::flat_hash_set<uint32_t> unreachable;
  for (const BlockTable::Change& change : changes) {
    if (change.location == BlockTable::kUnused) continue;
    unreachable.insert(change.block);
    if (parent_ != nullptr) continue;
    writes.Write(storage_, change.location * kSectorBytes,
                 std::vector<uint8_t>(bitmap_bytes_, 0xFF));
    co_await writes.AtMost(kWritesInFlight);
  }
  bool reachable_bitmaps = false;
  for (const BitmapCache::Change& change : bitmaps) {
    if (!unreachable.contains(change.block)) {
      reachable_bitmaps = true;
      continue;
    }
    writes.Write(storage_, change.location * kSectorBytes + change.offset, change.bytes);
    co_await writes.AtMost(kWritesInFlight);
  }
  co_await writes.AtMost(0);
  absl::Status status = writes.status();
  if (status.ok()) status = co_await Flush(storage_);
  CO_RETURN_IF_ERROR(status);
  if (!reachable_bitmaps && changes.empty()) co_return status;

  for (const BitmapCache::Change& change : bitmaps) {
    if (unreachable.contains(change.block)) continue;
    writes.Write(storage_, change.location * kSectorBytes + change.offset, change.bytes);
    co_await writes.AtMost(kWritesInFlight);
  }
  co_await writes.AtMost(0);
  status = writes.status();
  if (status.ok()) status = co_await table_.WriteCommit();
  if (status.ok()) status = co_await Flush(storage_);
  co_return status;
}

// Only requests begin a commit, and what is done besides (space given back) is part of one.
Task<void> DynamicDisk::Settle() {
  while (committing_) co_await commit_ended_.Wait();
}

Task<absl::Status> DynamicDisk::Close() {
  if (geometry_.read_only) {
    if (parent_ == nullptr) co_return absl::OkStatus();
    absl::Status status = co_await parent_->Close();
    co_return status;
  }
  absl::Status status = co_await Commit();
  if (status.ok()) {
    absl::Status trimmed = co_await space_.Reclaim(SIZE_MAX);
    if (trimmed.ok()) trimmed = co_await space_.Trim();
    status = trimmed;
  }
  status = storage_.AnswerFlush(std::move(status));
  if (parent_ != nullptr) {
    absl::Status closed = co_await parent_->Close();
    if (status.ok()) status = closed;
  }
  co_return status;
}

}  // namespace bothy::disk::vhd1
