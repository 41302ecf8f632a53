// PmemWindow: where pages come from, and how they get there.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "support/log.h"
#include "virtio/pmem/pmem_window.h"
#include "virtio/pmem/shared_bytes.h"

namespace bothy::virtio {
namespace {

// As many reads of the disk at once, each with a buffer of a chunk.
constexpr uint32_t kFillsInFlight = 32;

constexpr uint64_t RoundDown(uint64_t value, uint64_t unit) { return value / unit * unit; }

// Waits for the loop's next round.
struct NextRound {
  IoLoop& loop;
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiting) {
    loop.Post([waiting] { waiting.resume(); });
  }
  void await_resume() const noexcept {}
};

}  // namespace

Task<absl::StatusOr<PmemWindow::Source>> PmemWindow::FindSource(uint64_t offset) {
  const absl::StatusOr<disk::Extent> extent = co_await disk_->MapExtent(offset);
  CO_RETURN_IF_ERROR(extent.status());
  Source source;
  const uint64_t chunk_end = std::min(offset + kPmemChunkBytes, paged_bytes_);
  const uint64_t extent_end = offset + std::min(extent->length, disk_bytes_ - offset);
  // Whole chunks, or whole pages up to the disk's end.
  const auto whole = [this](uint64_t end) {
    return end == paged_bytes_ ? end : RoundDown(end, kPmemChunkBytes);
  };
  source.end = std::max(whole(extent_end), chunk_end);
  if (whole(extent_end) < chunk_end) co_return source;
  if (extent->kind == disk::Extent::Kind::kZero) {
    source.kind = Source::Kind::kZero;
    co_return source;
  }
  const bool mappable = extent->kind == disk::Extent::Kind::kFile && map_files_ &&
                        (extent->writable || read_only_) &&
                        extent->file_offset % kPmemPageBytes == 0;
  if (extent->kind == disk::Extent::Kind::kFile) WatchFile(extent->fd);
  if (!mappable) co_return source;
  source.fd = extent->fd;
  source.file_offset = extent->file_offset;
  if (heed_holes_ && !read_only_) {
    const FileRun allocated = co_await FindAllocated(loop_, source.fd, source.file_offset,
                                                     source.file_offset + (source.end - offset));
    const uint64_t begin = offset + (allocated.begin - source.file_offset);
    const uint64_t end = whole(offset + (allocated.end - source.file_offset));
    if (begin > offset || end < chunk_end) {
      // A hole, up to the chunk that isn't wholly one.
      source.end = std::max(whole(std::min(begin, source.end)), chunk_end);
      co_return source;
    }
    source.end = end;
  }
  source.kind = Source::Kind::kMap;
  co_return source;
}

void PmemWindow::WatchFile(int fd) {
  if (!files_->Watch(fd) || file_watch_ == nullptr) return;
  if (const absl::Status status = file_watch_->Add(fd); !status.ok()) {
    LogWarning(options_.name, absl::StrCat(disk_->path(), ": ", std::string(status.message())));
  }
}

bool PmemWindow::MapOver(const PageRun& run, const Source& source, uint64_t source_offset) {
  return files_->Map(run, source.fd, source.file_offset + (run.offset - source_offset));
}

void PmemWindow::Fetch(uint64_t chunk) {
  open_fills_.fetch_add(1, std::memory_order_relaxed);
  loop_.Post([this, chunk] {
    waiting_fills_.push_back(chunk);
    if (running_fills_ < kFillsInFlight) BeginFill();
  });
}

void PmemWindow::BeginFill() {
  const uint64_t chunk = waiting_fills_.front();
  waiting_fills_.pop_front();
  ++running_fills_;
  Start(Fill(chunk), [this] {
    --running_fills_;
    if (!waiting_fills_.empty()) BeginFill();
    // The last thing that is done here: whoever waits may end the window.
    if (open_fills_.fetch_sub(1, std::memory_order_relaxed) == 1) fills_ended_.WakeAll();
  });
}

Task<void> PmemWindow::AwaitFills() {
  while (open_fills_.load(std::memory_order_relaxed) != 0) co_await fills_ended_.Wait();
}

Task<void> PmemWindow::Fill(uint64_t chunk) {
  const uint64_t offset = chunk * kPmemChunkBytes;
  if (files_->Contains(offset)) {
    // Mapped between the fault and now.
    demand_->FinishElsewhere(chunk);
    co_return;
  }
  const absl::StatusOr<Source> source = co_await FindSource(offset);
  if (source.ok() && source->kind == Source::Kind::kMap) {
    const bool mapped = demand_->FinishMapped(
        chunk, source->end, [&](const PageRun& run) { return MapOver(run, *source, offset); });
    if (mapped) co_return;
  }
  bool zero = source.ok() && source->kind == Source::Kind::kZero;
  uint16_t lost = 0;
  std::unique_ptr<FillBuffer> buffer;
  std::span<uint8_t> contents;
  if (!zero) {
    if (fill_buffers_.empty()) fill_buffers_.push_back(std::make_unique<FillBuffer>());
    buffer = std::move(fill_buffers_.back());
    fill_buffers_.pop_back();
    contents = std::span(buffer->bytes).first(demand_->ChunkBytes(chunk));
    lost = co_await ReadChunk(offset, contents);
    // Pages of zeroes take no memory.
    zero = lost == 0 && AllZero(contents);
  }
  absl::Status status;
  while (true) {
    status = zero ? demand_->FinishZero(chunk) : demand_->FinishWith(chunk, contents, lost);
    if (!absl::IsResourceExhausted(status)) break;
    // The host is out of memory; the thread that wants the page waits until there is some, as it
    // would anywhere else.
    NextRound next_round{loop_};
    co_await next_round;
  }
  if (buffer != nullptr) fill_buffers_.push_back(std::move(buffer));
  if (!status.ok()) Fail(WithContext(status, absl::StrCat("filling pages at ", offset)));
}

// The pages that couldn't be read, which are zero then.
Task<uint16_t> PmemWindow::ReadChunk(uint64_t offset, std::span<uint8_t> contents) {
  disk::Disk& disk = *disk_;
  // The last page may be the disk's only in part.
  const uint64_t present = std::min<uint64_t>(contents.size(), disk_bytes_ - offset);
  std::fill(contents.begin() + static_cast<ptrdiff_t>(present), contents.end(), uint8_t{0});
  const std::span<uint8_t> bytes = contents.first(present);
  absl::Status status = co_await disk::ReadAt(disk, offset, bytes);
  if (status.ok()) co_return uint16_t{0};
  uint16_t lost = 0;
  for (uint64_t at = 0; at < present; at += kPmemPageBytes) {
    const std::span<uint8_t> page = bytes.subspan(at, std::min(kPmemPageBytes, present - at));
    status = co_await disk::ReadAt(disk, offset + at, page);
    if (status.ok()) continue;
    lost |= static_cast<uint16_t>(1U << (at / kPmemPageBytes));
    std::fill(page.begin(), page.end(), uint8_t{0});
    Fail(WithContext(status, absl::StrCat("the page at ", offset + at, " can't be read")));
  }
  co_return lost;
}

bool PmemWindow::Recover(Suspects suspects) {
  const std::vector<PageRun> runs =
      suspects == Suspects::kTruncated ? files_->TruncatedRuns() : files_->Runs();
  if (runs.empty()) return false;
  map_files_ = false;
  const absl::Status status = NeedDemandPages();
  LogError(options_.name,
           absl::StrCat(disk_->path(), ": mapped pages can't be accessed; ", runs.size(),
                        " mappings are given up and their pages read one by one"));
  for (const PageRun& run : runs) {
    absl::Status adopted = status;
    adopted.Update(status.ok() ? demand_->Adopt(run) : absl::OkStatus());
    files_->Forget(run);
    if (adopted.ok()) continue;
    // Then the guest must go on with what there is: nothing.
    MapAnonymous(run);
    Fail(WithContext(adopted, "mapped pages can't be accessed"));
  }
  return true;
}

}  // namespace bothy::virtio
