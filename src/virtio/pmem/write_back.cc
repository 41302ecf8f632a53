#include "virtio/pmem/write_back.h"

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <coroutine>
#include <memory>
#include <utility>

#include "support/check.h"

namespace bothy::virtio {
namespace {

constexpr size_t kWritesInFlight = 8;

// All writes, awaited together.
class Writes {
 public:
  Writes(disk::Disk& disk, std::span<const uint8_t> window, std::span<const PageRun> runs)
      : disk_(disk), window_(window), runs_(runs) {
    for (Write& write : writes_) write.owner = this;
  }
  Writes(const Writes&) = delete;
  Writes& operator=(const Writes&) = delete;
  ~Writes() { CHECK(in_flight_ == 0); }

  [[nodiscard]] bool await_ready() const noexcept { return runs_.empty(); }
  bool await_suspend(std::coroutine_handle<> waiting) {
    Pump();
    if (in_flight_ == 0) return false;
    waiting_ = waiting;
    return true;
  }
  [[nodiscard]] WriteBackResult await_resume() { return std::move(result_); }

 private:
  struct Write final : disk::Request {
    void Complete(absl::Status status) override { owner->Ended(*this, std::move(status)); }
    Writes* owner = nullptr;
    PageRun run;
    iovec buffer{};
    bool busy = false;
  };

  // Writes that end within Submit are counted here, not in a recursion.
  void Pump() {
    pumping_ = true;
    while (next_ < runs_.size()) {
      const auto idle = std::find_if(writes_.begin(), writes_.end(),
                                     [](const Write& write) { return !write.busy; });
      if (idle == writes_.end()) break;
      Begin(*idle, runs_[next_++]);
    }
    pumping_ = false;
  }
  void Begin(Write& write, const PageRun& run) {
    const uint64_t end = std::min(run.offset + run.length, disk_.geometry().size_bytes);
    write.run = run;
    write.busy = true;
    write.operation = disk::Operation::kWrite;
    write.offset = run.offset;
    write.length = end - run.offset;
    write.buffer = {.iov_base = const_cast<uint8_t*>(window_.data() + run.offset),
                    .iov_len = write.length};
    write.buffers = std::span<const iovec>(&write.buffer, 1);
    ++in_flight_;
    disk_.Submit(write);
  }
  void Ended(Write& write, absl::Status status) {
    write.busy = false;
    --in_flight_;
    if (!status.ok()) {
      result_.failed.push_back(write.run);
      if (result_.status.ok()) result_.status = std::move(status);
    }
    if (pumping_) return;
    Pump();
    if (in_flight_ == 0 && waiting_) std::exchange(waiting_, nullptr).resume();
  }

  disk::Disk& disk_;
  const std::span<const uint8_t> window_;
  const std::span<const PageRun> runs_;
  std::array<Write, kWritesInFlight> writes_;
  size_t next_ = 0;
  size_t in_flight_ = 0;
  bool pumping_ = false;
  std::coroutine_handle<> waiting_;
  WriteBackResult result_;
};

}  // namespace

Task<WriteBackResult> WriteBack(disk::Disk& disk, std::span<const uint8_t> window,
                                std::span<const PageRun> runs) {
  Writes writes(disk, window, runs);
  WriteBackResult result = co_await writes;
  co_return result;
}

}  // namespace bothy::virtio
