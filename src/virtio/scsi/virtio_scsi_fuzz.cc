// A hostile driver of a virtio-scsi controller: arbitrary guest memory, descriptors, rings and
// doorbells, on all queues, with completions, events, pauses and resets in between.
//
// An input is a series of operations: a byte that says which, then its operands. Besides crashes it
// looks for a write outside the buffers that a chain named (guest memory that no writable
// descriptor covers stays as it is) and for a reset that never ends.
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "disk/raw/raw_disk.h"
#include "disk/testing/memory_storage.h"
#include "support/check.h"
#include "support/io_loop.h"
#include "support/log.h"
#include "support/testing/fuzz_input.h"
#include "virtio/scsi/scsi_controller.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/guarded_ram.h"
#include "virtio/testing/test_transport.h"

namespace bothy::virtio {
namespace {

constexpr uint64_t kRamBytes = 1 << 20;
constexpr uint64_t kDiskBytes = 1 << 20;
constexpr uint16_t kQueueSize = 16;
constexpr uint64_t kQueueBase = 0x1000;
constexpr uint64_t kQueueStride = 0x1000;
constexpr uint64_t kGuarded = 0x80000;  // no descriptor made here points beyond it
constexpr size_t kQueues = 4;

class Machine {
 public:
  Machine() {
    for (uint16_t lun : {uint16_t{0}, uint16_t{5}}) {
      auto storage = std::make_unique<disk::MemoryStorage>();
      storages_.push_back(storage.get());
      storage->Truncate(kDiskBytes);
      CHECK_OK(target_.Attach(lun, *disk::OpenRawDisk(std::move(storage)), {}));
    }
    controller_.Resume();
    Activate(true, true);
  }
  ~Machine() {
    Reset();
    for (uint16_t lun : {uint16_t{0}, uint16_t{5}}) {
      target_.Detach(lun, [](std::unique_ptr<disk::Disk>) {});
    }
  }

  void Activate(bool event_index, bool indirect) {
    std::vector<std::unique_ptr<Virtqueue>> queues;
    for (size_t i = 0; i < kQueues; ++i) {
      testing::DriverQueue driver(*ram_, kQueueBase + i * kQueueStride, kQueueSize, event_index,
                                  indirect);
      queues.push_back(*Virtqueue::Create(*ram_, driver.setup()));
    }
    controller_.Activate(transport_, scsi_wire::kFeatureHotplug, std::move(queues));
  }
  void Reset() {
    if (quiesced_) TogglePause();
    bool done = false;
    controller_.Reset([&done] { done = true; });
    Settle([&done] { return done; });
    CHECK(done);
    CHECK_OK(ram_->Zero(kQueueBase, kQueues * kQueueStride));
  }
  void TogglePause() {
    if (!std::exchange(quiesced_, !quiesced_)) {
      bool done = false;
      controller_.Quiesce([&done] { done = true; });
      Settle([&done] { return done; });
      CHECK(done);
    } else {
      controller_.Resume();
    }
  }
  template <typename Until>
  void Settle(Until until) {
    int idle = 0;
    loop_->RunUntil([&] {
      if (until()) return true;
      bool pumped = false;
      for (disk::MemoryStorage* storage : storages_) pumped |= storage->Pump();
      idle = pumped ? 0 : idle + 1;
      // What a completion posts comes in the next round.
      if (idle > 3) return true;
      loop_->Post([] {});
      return false;
    });
  }

  void Step(FuzzInput& input) {
    switch (input.Take<uint8_t>() % 10) {
      case 0: {  // a descriptor, anywhere below the guard
        const uint64_t queue = input.Take<uint8_t>() % kQueues;
        const uint64_t at = kQueueBase + queue * kQueueStride + 16 * (input.Take<uint8_t>() % 16);
        Put<uint64_t>(at, input.Take<uint32_t>() % (kGuarded - 0x1000));
        Put<uint32_t>(at + 8, input.Take<uint16_t>() % 0x1000);
        Put<uint16_t>(at + 12, input.Take<uint8_t>());
        Put<uint16_t>(at + 14, input.Take<uint8_t>() % 18);
        break;
      }
      case 1: {  // a descriptor that may be anything
        const uint64_t queue = input.Take<uint8_t>() % kQueues;
        const uint64_t at = kQueueBase + queue * kQueueStride + 16 * (input.Take<uint8_t>() % 16);
        const auto address = input.Take<uint64_t>();
        // Into the guarded part only to be read.
        const bool harmless = address < kGuarded - 0x1000 || address >= kRamBytes;
        Put<uint64_t>(at, harmless ? address : 0x20000);
        Put<uint32_t>(at + 8, harmless && address < kRamBytes ? input.Take<uint16_t>() % 0x1000
                                                              : input.Take<uint32_t>() | kRamBytes);
        Put<uint16_t>(at + 12, input.Take<uint16_t>());
        Put<uint16_t>(at + 14, input.Take<uint16_t>());
        break;
      }
      case 2: {  // offer a head
        const uint64_t queue = input.Take<uint8_t>() % kQueues;
        const uint64_t ring = kQueueBase + queue * kQueueStride + 16 * kQueueSize;
        const auto index = *ram_->ReadObject<uint16_t>(ring + 2);
        Put<uint16_t>(ring + 4 + 2 * (index % kQueueSize), input.Take<uint8_t>() % 18);
        Put<uint16_t>(ring + 2, static_cast<uint16_t>(index + 1));
        break;
      }
      case 3:  // guest memory: headers and data
        Put<uint64_t>(0x8000 + input.Take<uint32_t>() % (kGuarded - 0x9000),
                      input.Take<uint64_t>());
        break;
      case 4: {  // a whole request, so that the SCSI layer is reached
        const uint64_t header = 0x10000;
        std::array<uint8_t, 51> bytes{};
        bytes[0] = 1;
        bytes[3] = input.Take<uint8_t>() % 7;
        for (size_t i = 19; i < 35; ++i) bytes[i] = input.Take<uint8_t>();
        CHECK_OK(ram_->Write(header, bytes));
        Describe(2, 0, header, 51, 1, 1);
        Describe(2, 1, 0x20000, input.Take<uint16_t>() % 0x1000,
                 input.Take<uint8_t>() % 2 == 0 ? 1 : 3, 2);
        Describe(2, 2, 0x30000, 108 + input.Take<uint16_t>() % 0x1000, 2, 0);
        const uint64_t ring = kQueueBase + 2 * kQueueStride + 16 * kQueueSize;
        const auto index = *ram_->ReadObject<uint16_t>(ring + 2);
        Put<uint16_t>(ring + 4 + 2 * (index % kQueueSize), 0);
        Put<uint16_t>(ring + 2, static_cast<uint16_t>(index + 1));
        controller_.OnDoorbell(2);
        break;
      }
      case 5:
        controller_.OnDoorbell(input.Take<uint8_t>() % (kQueues + 1));
        break;
      case 6:
        for (disk::MemoryStorage* storage : storages_) storage->Pump();
        break;
      case 7:
        controller_.Announce(static_cast<ScsiController::Change>(input.Take<uint8_t>() % 4),
                             input.Take<uint8_t>() % 64, [](EventQueue::Outcome) {});
        break;
      case 8:
        TogglePause();
        break;
      default:
        Reset();
        Activate(input.Take<uint8_t>() % 2 == 0, input.Take<uint8_t>() % 2 == 0);
        break;
    }
  }

 private:
  template <typename T>
  void Put(uint64_t at, T value) {
    CHECK_OK(ram_->WriteObject(at, value));
  }
  void Describe(uint64_t queue, uint64_t index, uint64_t address, uint32_t length, uint16_t flags,
                uint16_t next) {
    const uint64_t at = kQueueBase + queue * kQueueStride + 16 * index;
    Put(at, address);
    Put(at + 8, length);
    Put(at + 12, flags);
    Put(at + 14, next);
  }

  const testing::GuardedRam ram_{kRamBytes, kGuarded};
  std::unique_ptr<IoLoop> loop_ = *IoLoop::Create({.engine = IoLoop::Engine::kThreadPool});
  scsi::Target target_{[this](std::function<void()> call) { loop_->Post(std::move(call)); }};
  testing::QuietTransport transport_{kQueues};
  ScsiController controller_{{.name = "scsi0", .request_queues = 2}, target_, *loop_};
  std::vector<disk::MemoryStorage*> storages_;
  bool quiesced_ = false;
};

}  // namespace
}  // namespace bothy::virtio

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bothy::ConfigureLogging({.level = bothy::LogLevel::kError});
  bothy::virtio::Machine machine;
  bothy::FuzzInput input({data, size});
  for (int steps = 0; !input.empty() && steps < 500; ++steps) machine.Step(input);
  return 0;
}
