#include "bench/disk/disk_load.h"

#include <sys/resource.h>

#include <cstdlib>
#include <cstring>
#include <string>

namespace bothy::bench {
namespace {

constexpr size_t kAlignment = 4096;

double CpuSeconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

class DiskLoad::Slot final : public disk::Request {
 public:
  Slot(DiskLoad& load, uint64_t bytes)
      : load_(load), data_(std::aligned_alloc(kAlignment, bytes)), buffer_{data_, bytes} {
    std::memset(data_, 0x5A, bytes);
    operation = load.options_.operation;
    length = bytes;
    buffers = std::span<const iovec>(&buffer_, 1);
  }
  ~Slot() override { std::free(data_); }

  void Complete(absl::Status status) override {
    if (!status.ok()) Fail(std::string(status.message()));
    ++load_.done_;
    --load_.in_flight_;
    // From inside Submit: the one that submits goes on, so that the stack doesn't grow.
    if (submitting_) {
      completed_ = true;
    } else {
      load_.SubmitNext(*this);
    }
  }

 private:
  friend class DiskLoad;
  DiskLoad& load_;
  void* const data_;
  const iovec buffer_;
  bool submitting_ = false;
  bool completed_ = false;
};

DiskLoad::DiskLoad(IoLoop& loop, disk::Disk& disk, const Options& options)
    : loop_(loop), disk_(disk), options_(options) {
  const uint64_t size = disk.geometry().size_bytes;
  if (options_.span_bytes == 0 || options_.span_bytes > size) options_.span_bytes = size;
  if (options_.stride_bytes == 0) options_.stride_bytes = options_.block_bytes;
  next_ = options_.start_bytes;
  blocks_ = options_.span_bytes / options_.block_bytes;
  if (blocks_ == 0) Fail("the disk is smaller than a block");
  for (uint32_t i = 0; i < options_.depth; ++i) {
    slots_.push_back(std::make_unique<Slot>(*this, options_.block_bytes));
  }
}
DiskLoad::~DiskLoad() = default;

uint64_t DiskLoad::NextOffset() {
  if (options_.order == Order::kRandom) {
    const uint64_t number = uint64_t{random_()} << 31 | random_();
    return number % blocks_ * options_.block_bytes;
  }
  const uint64_t offset = next_;
  next_ += options_.stride_bytes;
  if (next_ + options_.block_bytes > options_.span_bytes) next_ %= options_.span_bytes;
  if (next_ + options_.block_bytes > options_.span_bytes) next_ = 0;
  return offset;
}

void DiskLoad::SubmitNext(Slot& slot) {
  do {
    // The clock is looked at for every sixteenth request.
    const bool over =
        options_.count != 0 ? begun_ >= options_.count : begun_ % 16 == 0 && Clock::now() >= end_;
    if (over) options_.count = begun_;  // for the others as well
    if (over) return;
    ++begun_;
    ++in_flight_;
    slot.offset = NextOffset();
    slot.completed_ = false;
    slot.submitting_ = true;
    disk_.Submit(slot);
    slot.submitting_ = false;
  } while (slot.completed_);
}

DiskLoad::Result DiskLoad::Run() {
  const double cpu_before = CpuSeconds();
  const Time start = Clock::now();
  end_ = start + std::chrono::duration_cast<Clock::duration>(
                     std::chrono::duration<double>(options_.seconds));
  for (const std::unique_ptr<Slot>& slot : slots_) SubmitNext(*slot);
  loop_.RunUntil([this] { return in_flight_ == 0; });
  Result result;
  result.requests = done_;
  result.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  result.cpu_seconds = CpuSeconds() - cpu_before;
  return result;
}

}  // namespace bothy::bench
