// PmemWindow: how stores get to the disk.
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "virtio/pmem/pmem_window.h"
#include "virtio/pmem/shared_bytes.h"
#include "virtio/pmem/write_back.h"

namespace bothy::virtio {
Task<absl::Status> PmemWindow::Flush() { return flushes_.Join(); }

Task<void> PmemWindow::Settle() {
  co_await flushes_.Idle();
  // What is mapped for them may be the image's first change.
  co_await AwaitFills();
  co_await disk_->Settle();
}

Task<absl::Status> PmemWindow::FlushRound() {
  // All of it, whatever fails: what can be saved is.
  absl::Status status = CheckPadding();
  if (!read_only_) {
    const absl::Status written = co_await WriteDirty();
    status.Update(written);
    const absl::Status synced = co_await SyncDisk();
    status.Update(synced);
  }
  status.Update(files_->Check());
  if (guard_->replaced_pages() != 0) {
    Fail(absl::DataLossError("a page of the image's file couldn't be accessed"));
  }
  if (const absl::Status lost = failure(); !lost.ok()) status = lost;
  flushes_done_.fetch_add(1, std::memory_order_relaxed);
  if (!status.ok()) {
    flushes_failed_.fetch_add(1, std::memory_order_relaxed);
    const std::lock_guard lock(mutex_);
    last_error_ = std::string(status.message());
  }
  co_return status;
}

Task<absl::Status> PmemWindow::WriteDirty() {
  settling_.clear();
  if (demand_ == nullptr) co_return absl::OkStatus();
  std::vector<PageRun> runs;
  absl::Status status = demand_->TakeDirty(runs);
  if (runs.empty()) co_return status;
  disk_written_ = true;
  disk::Disk& disk = *disk_;
  WriteBackResult result = co_await WriteBack(disk, mapping_.bytes(), runs);
  status.Update(result.status);
  const uint64_t tail = paged_bytes_ - disk_bytes_;
  const bool has_tail = runs.back().offset + runs.back().length > disk_bytes_;
  if (has_tail && !AllZero(mapping_.bytes().subspan(disk_bytes_, tail))) {
    result.failed.push_back(runs.back());
    status.Update(
        absl::OutOfRangeError(absl::StrCat("the guest stored past the disk's end, ", disk_bytes_)));
  }
  for (const PageRun& run : result.failed) {
    demand_->MarkDirty(run);
    std::erase(runs, run);
  }
  for (const PageRun& run : runs) written_bytes_.fetch_add(run.length, std::memory_order_relaxed);
  settling_ = std::move(runs);
  co_return status;
}

// One flush for what was written and what was stored to mapped pages, which are all of the disk's
// own file: the disk keeps the account of flushes that failed.
Task<absl::Status> PmemWindow::SyncDisk() {
  if (!files_->TakeUnsynced().empty()) mapped_stored_ = true;
  if (!mapped_stored_ && !disk_written_) co_return absl::OkStatus();
  const disk::Disk::MappedSync sync = co_await disk_->SyncMapped();
  if (sync.status.ok()) {
    mapped_stored_ = false;
    disk_written_ = false;
    co_return sync.status;
  }
  // What was written may be lost with it; it is still here. Not so mapped pages: the kernel says so
  // once and counts them as clean.
  for (const PageRun& run : settling_) demand_->MarkDirty(run);
  settling_.clear();
  // A file that was deleted has them as long as it is open: each flush says so anew.
  const bool deleted = absl::IsUnavailable(sync.status);
  if (mapped_stored_ && sync.stores_lost && !deleted) Fail(sync.status);
  co_return sync.status;
}

absl::Status PmemWindow::CheckPadding() const {
  if (AllZero(mapping_.bytes().subspan(paged_bytes_))) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat("the guest stored past the disk's end, ", disk_bytes_,
                                            ": a file system made for a larger disk?"));
}

// Pages that the disk has got room for in its file needn't take memory of their own any more, nor
// be tracked.
Task<void> PmemWindow::SettleRound() {
  const std::vector<PageRun> runs = std::exchange(settling_, {});
  uint64_t offset = 0;
  for (const PageRun& run : runs) {
    offset = std::max(offset, run.offset - run.offset % kPmemChunkBytes);
    const uint64_t last = run.offset + run.length - kPmemPageBytes;
    const uint64_t run_end =
        std::min(last - last % kPmemChunkBytes + kPmemChunkBytes, paged_bytes_);
    while (offset < run_end) {
      const uint64_t begin = offset;
      const absl::StatusOr<Source> source = co_await FindSource(begin);
      if (!source.ok()) co_return;
      offset = std::min(source->end, run_end);
      if (source->kind != Source::Kind::kMap) continue;
      const auto map = [&](const PageRun& over) { return MapOver(over, *source, begin); };
      if (demand_->Replace({.offset = begin, .length = offset - begin}, map)) continue;
      // Some were stored to again.
      for (uint64_t at = begin; at < offset; at += kPmemChunkBytes) {
        const uint64_t bytes = std::min(kPmemChunkBytes, offset - at);
        static_cast<void>(demand_->Replace({.offset = at, .length = bytes}, map));
      }
    }
  }
}

}  // namespace bothy::virtio
