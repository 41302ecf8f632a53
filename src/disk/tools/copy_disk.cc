#include "disk/tools/copy_disk.h"

#include <algorithm>
#include <coroutine>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "disk/data_survey.h"
#include "support/check.h"
#include "support/zero_bytes.h"

namespace bothy::disk::tools {
namespace {

constexpr uint64_t kChunkBytes = 1 << 20;
constexpr size_t kChunksInFlight = 16;
// What is skipped when it is zero, or when it is the same. Smaller runs cost more requests than
// they save.
constexpr uint64_t kGrainBytes = 64 << 10;

// What is known of the bytes that follow an offset.
struct Run {
  enum class Kind : uint8_t { kZero, kData, kSkip };
  Kind kind = Kind::kData;
  uint64_t length = 0;
};

Task<absl::StatusOr<Run>> WholeContents(Disk& from, uint64_t offset) {
  absl::StatusOr<DataRun> run = co_await FindRun(from, offset);
  if (!run.ok()) co_return run.status();
  co_return Run{.kind = run->is_zero ? Run::Kind::kZero : Run::Kind::kData, .length = run->length};
}

// Behind the source's end, where the target shall hold zeros.
Task<absl::StatusOr<Run>> TargetBehindSource(Disk& to, uint64_t offset) {
  absl::StatusOr<DataRun> run = co_await FindRun(to, offset);
  if (!run.ok()) co_return run.status();
  co_return Run{.kind = run->is_zero ? Run::Kind::kSkip : Run::Kind::kZero, .length = run->length};
}

Task<absl::StatusOr<Run>> OwnContents(Disk& child, uint64_t offset) {
  absl::StatusOr<Presence> presence = co_await child.FindPresence(offset);
  if (!presence.ok()) co_return presence.status();
  const Run::Kind kind = presence->kind == Presence::Kind::kHere   ? Run::Kind::kData
                         : presence->kind == Presence::Kind::kZero ? Run::Kind::kZero
                                                                   : Run::Kind::kSkip;
  co_return Run{.kind = kind, .length = presence->length};
}

// Chunks under way.
class Copier {
 public:
  // `total` bytes of the target; behind the source's end they become zero.
  Copier(Disk& from, Disk& to, const CopyOptions& options, uint64_t total)
      : from_(from),
        to_(to),
        options_(options),
        sector_(std::max(from.geometry().logical_sector_bytes, to.geometry().logical_sector_bytes)),
        source_bytes_(from.geometry().size_bytes),
        total_(total) {}
  ~Copier() { CHECK(in_flight_ == 0); }

  template <typename NextRun>
  Task<absl::Status> Run(NextRun next_run) {
    for (uint64_t offset = 0; offset < total_ && status_.ok();) {
      if (options_.stop.stop_requested()) Fail(absl::CancelledError("interrupted"));
      absl::StatusOr<tools::Run> found;
      if (offset < source_bytes_) {
        found = co_await next_run(from_, offset);
      } else {
        found = co_await TargetBehindSource(to_, offset);
      }
      if (!found.ok()) {
        Fail(found.status());
        break;
      }
      const uint64_t run_end = std::min(offset + WholeSectors(*found), total_);
      if (found->kind == tools::Run::Kind::kSkip) {
        Done(run_end - offset);
        offset = run_end;
        continue;
      }
      const bool zero = found->kind == tools::Run::Kind::kZero;
      while (offset < run_end && status_.ok() && !options_.stop.stop_requested()) {
        // Zeros that nobody has to look at go at once.
        const bool at_once = zero && options_.target == CopyOptions::Target::kZero;
        const uint64_t end =
            at_once ? run_end : std::min(run_end, (offset / kChunkBytes + 1) * kChunkBytes);
        if (at_once) {
          Done(end - offset);
        } else {
          co_await Room{*this, kChunksInFlight - 1};
          Begin(offset, end - offset, zero);
        }
        offset = end;
      }
    }
    co_await Room{*this, 0};
    co_return status_;
  }

 private:
  struct Room {
    Copier& copier;
    size_t most;
    [[nodiscard]] bool await_ready() const noexcept { return copier.in_flight_ <= most; }
    void await_suspend(std::coroutine_handle<> waiting) {
      copier.waiting_ = waiting;
      copier.most_ = most;
    }
    void await_resume() const noexcept {}
  };
  struct Buffers {
    std::vector<uint8_t> source = std::vector<uint8_t>(kChunkBytes);
    std::vector<uint8_t> target;  // kContents only
  };

  // A run that both disks have as sectors: where one is smaller than a sector of the other disk's
  // it is data, whatever else the sector holds.
  uint64_t WholeSectors(tools::Run& run) const {
    if (run.length >= sector_) return run.length / sector_ * sector_;
    run.kind = tools::Run::Kind::kData;
    return sector_;
  }

  void Begin(uint64_t offset, uint64_t length, bool zero) {
    if (unused_.empty()) unused_.push_back(std::make_unique<Buffers>());
    std::unique_ptr<Buffers> buffers = std::move(unused_.back());
    unused_.pop_back();
    ++in_flight_;
    Buffers& in_use = *buffers;
    Start(CopyChunk(in_use, offset, length, zero),
          [this, length, kept = std::move(buffers)](const absl::Status& status) mutable {
            unused_.push_back(std::move(kept));
            --in_flight_;
            if (!status.ok()) Fail(status);
            Done(length);
            if (waiting_ && in_flight_ <= most_) std::exchange(waiting_, nullptr).resume();
          });
  }

  Task<absl::Status> CopyChunk(Buffers& buffers, uint64_t offset, uint64_t length, bool zero) {
    const uint64_t left = source_bytes_ - std::min(source_bytes_, offset);
    const uint64_t there = zero ? 0 : std::min(length, left);
    absl::Status status;
    if (there != 0) {
      const std::span<uint8_t> source(buffers.source.data(), there);
      status = co_await ReadAt(from_, offset, source);
      CO_RETURN_IF_ERROR(status);
    }
    std::memset(buffers.source.data() + there, 0, length - there);
    const bool compare = options_.target == CopyOptions::Target::kContents;
    if (compare) {
      buffers.target.resize(kChunkBytes);
      const std::span<uint8_t> target(buffers.target.data(), length);
      status = co_await ReadAt(to_, offset, target);
      CO_RETURN_IF_ERROR(status);
    }
    // Runs of grains that have to be written.
    for (uint64_t at = 0; at < length;) {
      const uint64_t begin = at;
      while (at < length && MustWrite(buffers, offset, at, length, compare))
        at = NextGrain(offset, at, length);
      if (at > begin) {
        const std::span<const uint8_t> part(buffers.source.data() + begin, at - begin);
        status = co_await WriteAt(to_, offset + begin, part);
        CO_RETURN_IF_ERROR(status);
      }
      if (at < length) at = NextGrain(offset, at, length);
    }
    co_return absl::OkStatus();
  }

  static uint64_t NextGrain(uint64_t offset, uint64_t at, uint64_t length) {
    const uint64_t next = ((offset + at) / kGrainBytes + 1) * kGrainBytes - offset;
    return std::min(next, length);
  }
  static bool MustWrite(const Buffers& buffers, uint64_t offset, uint64_t at, uint64_t length,
                        bool compare) {
    const size_t size = NextGrain(offset, at, length) - at;
    const uint8_t* source = buffers.source.data() + at;
    return compare ? std::memcmp(source, buffers.target.data() + at, size) != 0
                   : !IsZero({source, size});
  }

  void Fail(const absl::Status& status) {
    if (status_.ok()) status_ = status;
  }
  void Done(uint64_t bytes) {
    done_ += bytes;
    if (options_.progress) options_.progress(done_, total_);
  }

  Disk& from_;
  Disk& to_;
  const CopyOptions& options_;
  const uint64_t sector_;  // bytes: the larger one of the two disks'
  const uint64_t source_bytes_;
  const uint64_t total_;
  uint64_t done_ = 0;
  absl::Status status_;
  size_t in_flight_ = 0;
  size_t most_ = 0;
  std::coroutine_handle<> waiting_;
  std::vector<std::unique_ptr<Buffers>> unused_;
};

}  // namespace

Task<absl::Status> CopyDisk(Disk& from, Disk& to, const CopyOptions& options) {
  uint64_t total = to.geometry().size_bytes;
  if (options.target == CopyOptions::Target::kZero) {
    const uint64_t sector = to.geometry().logical_sector_bytes;
    total = (from.geometry().size_bytes + sector - 1) / sector * sector;
  }
  Copier copier(from, to, options, total);
  absl::Status status = co_await copier.Run(WholeContents);
  co_return status;
}

Task<absl::Status> CopyOwnContents(Disk& child, Disk& parent, const CopyOptions& options) {
  Copier copier(child, parent, options, child.geometry().size_bytes);
  absl::Status status = co_await copier.Run(OwnContents);
  co_return status;
}

}  // namespace bothy::disk::tools
