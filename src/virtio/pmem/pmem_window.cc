#include "virtio/pmem/pmem_window.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "support/log.h"

namespace bothy::virtio {
namespace {

// Extents that are looked at before the guest runs; what lies behind is found when it is touched,
// so that opening a huge image costs no more than a small one.
constexpr int kPlannedExtents = 4096;

constexpr uint64_t RoundUp(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

}  // namespace

PmemWindow::PmemWindow(IoLoop& loop, std::unique_ptr<disk::Disk> disk, PmemWindowOptions options)
    : loop_(loop),
      options_(std::move(options)),
      disk_(std::move(disk)),
      disk_bytes_(disk_->geometry().size_bytes),
      paged_bytes_(RoundUp(disk_bytes_, kPmemPageBytes)),
      read_only_(disk_->geometry().read_only),
      flushes_(
          loop, [this] { return FlushRound(); }, [this] { return SettleRound(); }) {}

PmemWindow::~PmemWindow() { CHECK(closed_); }

Task<absl::StatusOr<std::unique_ptr<PmemWindow>>> PmemWindow::Create(
    IoLoop& loop, std::unique_ptr<disk::Disk> disk, PmemWindowOptions options) {
  std::unique_ptr<PmemWindow> window(new PmemWindow(loop, std::move(disk), std::move(options)));
  const absl::Status status = co_await window->Open();
  if (!status.ok()) {
    // Of a disk nobody wrote to; why it couldn't be opened is what matters.
    const absl::Status closed = co_await window->CloseParts();
    static_cast<void>(closed);
    co_return WithContext(status, window->disk_->path());
  }
  co_return window;
}

Task<absl::Status> PmemWindow::Open() {
  const disk::Geometry& geometry = disk_->geometry();
  if (disk_bytes_ == 0 || geometry.logical_sector_bytes > kPmemPageBytes) {
    co_return absl::InvalidArgumentError(
        absl::StrCat("a disk of ", disk_bytes_, " bytes in sectors of ",
                     geometry.logical_sector_bytes, " can't be persistent memory"));
  }
  const int protection = PROT_READ | (read_only_ ? 0 : PROT_WRITE);
  absl::StatusOr<Mapping> mapping = Mapping::CreateAligned(
      RoundUp(disk_bytes_, kPmemAlignment), kPmemAlignment, protection,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, "addresses for persistent memory");
  CO_ASSIGN_OR_RETURN(mapping_, mapping);
  ::madvise(mapping_.data(), mapping_.size(), MADV_DONTDUMP);
  files_.emplace(mapping_.bytes(), !read_only_, options_.max_mappings);
  if (options_.watch_files) {
    absl::StatusOr<std::unique_ptr<FileWatch>> watch =
        FileWatch::Create(loop_, [this] { Recover(Suspects::kTruncated); });
    if (watch.ok()) {
      file_watch_ = *std::move(watch);
    } else {
      LogWarning(
          options_.name,
          absl::StrCat(disk_->path(), ": that the file was truncated won't be noticed at once: ",
                       std::string(watch.status().message())));
    }
  }

  absl::StatusOr<PlanResult> plan = co_await Plan();
  CO_RETURN_IF_ERROR(plan.status());
  absl::Status status = Carry(*plan);
  if (absl::IsFailedPrecondition(status) && !read_only_) {
    // Without userfaultfd holes of the file may still be mapped, if there is nothing else.
    heed_holes_ = false;
    files_.emplace(mapping_.bytes(), !read_only_, options_.max_mappings);
    absl::StatusOr<PlanResult> with_holes = co_await Plan();
    CO_RETURN_IF_ERROR(with_holes.status());
    if (Carry(*with_holes).ok()) {
      LogWarning(options_.name, absl::StrCat(disk_->path(),
                                             ": mapped with its holes; if the host's file system "
                                             "gets full, stores of the guest are lost (",
                                             std::string(status.message()), ")"));
      status = absl::OkStatus();
    }
  }
  CO_RETURN_IF_ERROR(status);
  absl::StatusOr<std::unique_ptr<SigbusGuard>> guard = SigbusGuard::Create(mapping_.bytes());
  CO_ASSIGN_OR_RETURN(guard_, guard);
  co_return absl::OkStatus();
}

Task<absl::StatusOr<PmemWindow::PlanResult>> PmemWindow::Plan() {
  PlanResult plan;
  uint64_t offset = 0;
  for (int i = 0; i < kPlannedExtents && offset < paged_bytes_; ++i) {
    const absl::StatusOr<Source> source = co_await FindSource(offset);
    CO_RETURN_IF_ERROR(source.status());
    const PageRun run = {.offset = offset, .length = source->end - offset};
    if (source->kind == Source::Kind::kMap) {
      plan.mappings.push_back({.run = run, .fd = source->fd, .file_offset = source->file_offset});
    } else if (source->kind == Source::Kind::kZero && read_only_) {
      plan.zeroes.push_back(run);
    }
    offset = source->end;
  }
  co_return plan;
}

// Maps what is planned; everything else is filled on demand.
absl::Status PmemWindow::Carry(const PlanResult& plan) {
  std::vector<PageRun> settled = plan.zeroes;
  for (const PlannedMapping& mapping : plan.mappings) {
    if (files_->Map(mapping.run, mapping.fd, mapping.file_offset)) settled.push_back(mapping.run);
  }
  std::sort(settled.begin(), settled.end(),
            [](const PageRun& a, const PageRun& b) { return a.offset < b.offset; });
  settled.push_back({.offset = paged_bytes_, .length = 0});
  uint64_t offset = 0;
  for (const PageRun& run : settled) {
    if (offset < run.offset) {
      RETURN_IF_ERROR(NeedDemandPages());
      RETURN_IF_ERROR(demand_->Adopt({.offset = offset, .length = run.offset - offset}));
    }
    offset = run.offset + run.length;
  }
  return absl::OkStatus();
}

absl::Status PmemWindow::NeedDemandPages() {
  if (demand_ != nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(demand_,
                   DemandPages::Create({.range = mapping_.bytes().first(paged_bytes_),
                                        .track_stores = !read_only_,
                                        .thread_name = absl::StrCat("fault-", options_.name),
                                        .fetch = [this](uint64_t chunk) { Fetch(chunk); }}));
  demand_for_state_.store(demand_.get(), std::memory_order_release);
  return absl::OkStatus();
}

Task<absl::Status> PmemWindow::Close() {
  absl::Status flushed = co_await Flush();
  co_await flushes_.Idle();
  const absl::Status closed = co_await CloseParts();
  flushed.Update(closed);
  co_return flushed;
}

Task<absl::Status> PmemWindow::CloseParts() {
  file_watch_.reset();
  const auto replace = [this] {
    if (mapping_.size() != 0) MapAnonymous({.offset = 0, .length = mapping_.size()});
  };
  if (demand_ != nullptr) {
    demand_->Retire(replace);
  } else {
    replace();
  }
  guard_.reset();
  co_await AwaitFills();
  absl::Status status = co_await disk_->Close();
  closed_ = true;
  co_return status;
}

void PmemWindow::MapAnonymous(const PageRun& run) {
  const auto map = [&](int protection) {
    return ::mmap(mapping_.data() + run.offset, run.length, protection,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
  };
  // A host that promises no memory it hasn't got may refuse the first.
  CHECK(map(PROT_READ | PROT_WRITE) || map(PROT_NONE));
}

void PmemWindow::Fail(const absl::Status& status) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_.ok()) return;
    failure_ = status;
  }
  LogError(
      options_.name,
      absl::StrCat(disk_->path(), ": flushes fail from now on: ", std::string(status.message())));
  if (options_.on_failure) options_.on_failure(status);
}

void PmemWindow::NoteRefusedStore() {
  // On the loop, where failures are told of.
  loop_.Post([this] {
    Fail(absl::PermissionDeniedError("the guest stored to memory that is read-only"));
  });
}

absl::Status PmemWindow::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

bool PmemWindow::OnFault(Suspects suspects) {
  bool recovered = false;
  loop_.PostAndWait([&] { recovered = Recover(suspects); });
  return recovered;
}

PmemWindow::State PmemWindow::state() const {
  State state;
  state.mapped_bytes = files_->bytes();
  state.mappings = files_->count();
  state.demand_bytes = disk_bytes_ - std::min(disk_bytes_, state.mapped_bytes);
  const DemandPages* const demand = demand_for_state_.load(std::memory_order_acquire);
  if (demand != nullptr) {
    const DemandPages::Stats stats = demand->stats();
    state.populated_bytes = stats.populated_pages * kPmemPageBytes;
    state.dirty_bytes = stats.dirty_pages * kPmemPageBytes;
    state.fills = stats.fetches;
    state.tracked_stores = stats.store_faults;
  }
  state.written_bytes = written_bytes_.load(std::memory_order_relaxed);
  state.flushes = flushes_done_.load(std::memory_order_relaxed);
  state.failed_flushes = flushes_failed_.load(std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  state.last_error = last_error_;
  state.failure = std::string(failure_.message());
  return state;
}

void PmemWindow::Inspect(inspect::Node& node) const {
  const State now = state();
  node.Value("disk_bytes", disk_bytes_);
  node.Value("padding_bytes", size_bytes() - disk_bytes_);
  node.Value("read_only", read_only_);
  node.Value("mapped_bytes", now.mapped_bytes);
  node.Value("mappings", now.mappings);
  node.Value("demand_bytes", now.demand_bytes);
  node.Value("populated_bytes", now.populated_bytes);
  node.Value("dirty_bytes", now.dirty_bytes);
  node.Value("fills", now.fills);
  node.Value("tracked_stores", now.tracked_stores);
  node.Value("written_bytes", now.written_bytes);
  node.Value("flushes", now.flushes);
  node.Value("failed_flushes", now.failed_flushes);
  node.Value("last_error", now.last_error);
  node.Value("failure", now.failure);
}

}  // namespace bothy::virtio
