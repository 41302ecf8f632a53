// A hostile driver of a balloon: arbitrary descriptors, rings, doorbells and configuration, with
// questions, pauses and resets in between.
//
// An input is a series of operations: a byte that says which, then its operands. Besides crashes it
// looks for writes (memory that no descriptor made here reaches stays as it is), and for questions
// that are never answered although the device was reset.
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "support/check.h"
#include "support/io_loop.h"
#include "support/testing/fuzz_input.h"
#include "virtio/balloon/balloon_device.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/guarded_ram.h"
#include "virtio/testing/hostile_ring.h"
#include "virtio/testing/test_transport.h"

namespace bothy::virtio {
namespace {

constexpr uint64_t kRamBytes = 1 << 20;
constexpr uint16_t kQueues = 5;
constexpr uint16_t kQueueSize = 16;
constexpr uint64_t kRings = 0x1000;
constexpr uint64_t kRingStride = 0x1000;
constexpr uint64_t kGuarded = 0x80000;  // neither buffers nor pages made here reach it

class Machine {
 public:
  Machine() {
    device_.Resume();
    Activate(0x36, true);
  }
  ~Machine() { Reset(); }

  void Step(FuzzInput& input) {
    const auto operation = input.Take<uint8_t>();
    const uint16_t queue = operation / 8 % kQueues;
    testing::HostileRing ring(*ram_, kRings + queue * kRingStride, kQueueSize, kGuarded);
    switch (operation % 8) {
      case 0: {
        const uint64_t slot = ring.Slot(input);
        const uint64_t address = 0x8000 + input.Take<uint16_t>();
        const uint32_t length = input.Take<uint16_t>() % 0x8000;
        ring.PutLikely(slot, address, length, input);
        break;
      }
      case 1:
        ring.PutAny(input);
        break;
      case 2:
        ring.Offer(input);
        device_.OnDoorbell(queue);
        break;
      case 3:
        ring.PutIndex(input);
        device_.OnDoorbell(queue);
        break;
      case 4: {  // page numbers and statistics; of the pages those before the guard, and none at
                 // all
        const uint64_t at = 0x8000 + input.Take<uint16_t>() % 0x8000 / 4 * 4;
        const bool in_ram = input.Take<uint8_t>() % 2 == 0;
        const uint32_t number = in_ram ? input.Take<uint8_t>() % (kGuarded / 4096)
                                       : 0x100 + input.Take<uint32_t>() % 0xFFFFFE00;
        CHECK_OK(ram_->WriteObject(at, number));
        break;
      }
      case 5:
        if (queue == 0) return TogglePause();
        ++asked_;
        device_.AskStatistics([this] { ++answered_; });
        break;
      case 6: {
        std::array<uint8_t, 4> bytes;
        for (uint8_t& byte : bytes) byte = input.Take<uint8_t>();
        const size_t count = input.Take<uint8_t>() % 5;
        device_.WriteConfig(input.Take<uint8_t>(), std::span(bytes).first(count));
        device_.ReadConfig(input.Take<uint64_t>(), std::span(bytes).first(count));
        break;
      }
      default:
        Reset();
        CHECK_OK(ram_->Zero(kRings, kQueues * kRingStride));
        Activate(input.Take<uint8_t>(), operation % 2 == 0);
    }
    RunPosted();
  }

 private:
  void Activate(uint64_t features, bool event_index) {
    std::vector<std::unique_ptr<Virtqueue>> queues;
    for (uint16_t i = 0; i < kQueues; ++i) {
      const testing::DriverQueue driver(*ram_, kRings + i * kRingStride, kQueueSize, event_index);
      queues.push_back(*Virtqueue::Create(*ram_, driver.setup()));
    }
    device_.Activate(transport_, features, std::move(queues));
  }
  void TogglePause() {
    if (std::exchange(paused_, !paused_)) return device_.Resume();
    bool done = false;
    device_.Quiesce([&done] { done = true; });
    CHECK(done && answered_ == asked_);
  }
  void Reset() {
    bool done = false;
    device_.Reset([&done] { done = true; });
    CHECK(done && answered_ == asked_);
  }
  void RunPosted() {
    bool done = false;
    loop_->Post([&done] { done = true; });
    loop_->RunUntil([&done] { return done; });
  }

  const testing::GuardedRam ram_{kRamBytes, kGuarded};
  std::unique_ptr<IoLoop> loop_ =
      *IoLoop::Create({.engine = IoLoop::Engine::kThreadPool, .pool_threads = 1});
  testing::QuietTransport transport_{kQueues};
  BalloonDevice device_{{.name = "balloon0", .report_free_pages = true}, *ram_, *loop_};
  bool paused_ = false;
  uint64_t asked_ = 0;
  uint64_t answered_ = 0;
};

}  // namespace
}  // namespace bothy::virtio

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bothy::FuzzInput input({data, size});
  bothy::virtio::Machine machine;
  while (!input.empty()) machine.Step(input);
  return 0;
}
