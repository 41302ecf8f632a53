// A hostile driver of a virtio-pmem device: arbitrary descriptors, rings and doorbells, with
// flushes that end early, late and badly, pauses and resets in between.
//
// An input is a series of operations: a byte that says which, then its operands. Besides crashes it
// looks for a write outside the buffers that a chain may name here (guest memory beyond them stays
// as it is), for an answer to a request that wasn't made, and for a pause or a reset that never
// ends.
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <coroutine>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "support/check.h"
#include "support/io_loop.h"
#include "support/mapping.h"
#include "support/testing/fuzz_input.h"
#include "virtio/pmem/pmem_device.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/guarded_ram.h"
#include "virtio/testing/hostile_ring.h"
#include "virtio/testing/test_transport.h"

namespace bothy::virtio {
namespace {

constexpr uint64_t kRamBytes = 1 << 20;
constexpr uint16_t kQueueSize = 16;
constexpr uint64_t kRings = 0x1000;
constexpr uint64_t kWindow = uint64_t{4} << 30;
constexpr uint64_t kGuarded = 0x20000;  // no descriptor made here reaches it

class Flushes final : public Flushable {
 public:
  Task<absl::Status> Flush() override {
    if (at_once) co_return absl::OkStatus();
    Held held(*this);
    absl::Status status = co_await held;
    co_return status;
  }
  Task<void> Settle() override { co_return; }
  bool End(size_t which, const absl::Status& status) {
    if (held_.empty()) return false;
    const auto at = held_.begin() + static_cast<ptrdiff_t>(which % held_.size());
    Held* const held = *at;
    held_.erase(at);
    held->status = status;
    held->handle.resume();
    return true;
  }
  [[nodiscard]] size_t count() const { return held_.size(); }
  bool at_once = false;

 private:
  struct Held {
    explicit Held(Flushes& flushes) : flushes(flushes) {}
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiting) {
      handle = waiting;
      flushes.held_.push_back(this);
    }
    [[nodiscard]] absl::Status await_resume() { return status; }
    Flushes& flushes;
    std::coroutine_handle<> handle;
    absl::Status status;
  };
  std::vector<Held*> held_;
};

class Machine {
 public:
  Machine() {
    CHECK_OK(ram_->AddDeviceMemory(kWindow, window_.bytes(), memory::Access::kWrite));
    device_.Resume();
    Activate(true);
  }
  ~Machine() { Reset(); }

  void Step(FuzzInput& input) {
    switch (input.Take<uint8_t>() % 9) {
      case 0: {
        const uint64_t slot = ring_.Slot(input);
        const auto address = input.Take<uint16_t>();
        const uint32_t length = input.Take<uint8_t>() % 16;
        ring_.PutLikely(slot, address % 32 == 0 ? kWindow + address : 0x8000U + address, length,
                        input);
        break;
      }
      case 1:
        ring_.PutAny(input);
        break;
      case 2:
        ring_.Offer(input);
        device_.OnDoorbell(0);
        break;
      case 3:
        ring_.PutIndex(input);
        device_.OnDoorbell(0);
        break;
      case 4:
        flushes_.End(input.Take<uint8_t>(), absl::OkStatus());
        break;
      case 5:
        flushes_.End(input.Take<uint8_t>(), absl::ResourceExhaustedError("full"));
        break;
      case 6:
        flushes_.at_once = !flushes_.at_once;
        break;
      case 7:
        TogglePause();
        break;
      case 8:
        Reset();
        CHECK_OK(ram_->Zero(kRings, 0x1000));
        Activate(input.Take<uint8_t>() % 2 == 0);
        break;
    }
    CHECK(flushes_.count() <= kQueueSize);
    RunPosted();
  }

 private:
  void Activate(bool event_index) {
    const testing::DriverQueue driver(*ram_, kRings, kQueueSize, event_index);
    std::vector<std::unique_ptr<Virtqueue>> queues;
    QueueSetup setup = driver.setup();
    setup.backing = device_.backing();
    queues.push_back(*Virtqueue::Create(*ram_, setup));
    device_.Activate(transport_, 0, std::move(queues));
  }
  void TogglePause() {
    if (std::exchange(paused_, !paused_)) return device_.Resume();
    bool done = false;
    device_.Quiesce([&done] { done = true; });
    while (flushes_.End(0, absl::OkStatus())) {
    }
    CHECK(done);
  }
  void Reset() {
    bool done = false;
    device_.Reset([&done] { done = true; });
    while (flushes_.End(0, absl::OkStatus())) {
    }
    CHECK(done);
  }
  void RunPosted() {
    bool done = false;
    loop_->Post([&done] { done = true; });
    loop_->RunUntil([&done] { return done; });
  }

  // The memory of persistent memory, which its own device may not touch.
  const Mapping window_ =
      *Mapping::Create(1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, "persistent memory");
  const testing::GuardedRam ram_{kRamBytes, kGuarded};
  testing::HostileRing ring_{*ram_, kRings, kQueueSize, kGuarded};
  std::unique_ptr<IoLoop> loop_ =
      *IoLoop::Create({.engine = IoLoop::Engine::kThreadPool, .pool_threads = 1});
  Flushes flushes_;
  testing::QuietTransport transport_{1};
  PmemDevice device_{
      {.name = "pmem0", .guest_base = kWindow, .size_bytes = 2 << 20}, flushes_, *loop_};
  bool paused_ = false;
};

}  // namespace
}  // namespace bothy::virtio

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bothy::FuzzInput input({data, size});
  bothy::virtio::Machine machine;
  while (!input.empty()) machine.Step(input);
  return 0;
}
