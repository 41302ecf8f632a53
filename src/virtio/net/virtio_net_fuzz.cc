// A hostile driver of a network card, and a hostile network: arbitrary guest memory, descriptors,
// rings and doorbells, on all queues, frames of any length with any header from the other side,
// links that come and go, pauses, resets, other networks.
//
// An input is a series of operations: a byte that says which, then its operands. Besides crashes it
// looks for a write outside the buffers that a chain named (guest memory that no writable
// descriptor covers stays as it is), for a header that isn't true on its way to the network, and
// for a reset that never ends.
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "support/check.h"
#include "support/endian.h"
#include "support/io_loop.h"
#include "support/log.h"
#include "support/testing/fuzz_input.h"
#include "virtio/net/net_device.h"
#include "virtio/net/wire.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/fake_backend.h"
#include "virtio/testing/guarded_ram.h"
#include "virtio/testing/test_transport.h"

namespace bothy::virtio {
namespace {

using testing::DriverQueue;
using testing::FakeBackend;

constexpr uint64_t kRamBytes = 1 << 20;
constexpr uint16_t kPairs = 2;
constexpr uint16_t kQueues = 2 * kPairs + 1;
constexpr uint16_t kRingSize = 16;
constexpr uint64_t kQueueBase = 0x1000;
constexpr uint64_t kQueueStride = 0x1000;
constexpr uint64_t kCommand = 0x70000;
constexpr uint64_t kGuarded = 0x80000;  // no descriptor made here points beyond it

class Machine {
 public:
  Machine() {
    auto backend = std::make_unique<FakeBackend>(kPairs);
    backend_ = backend.get();
    auto device = NetDevice::Create({.name = "net0", .mac = {2, 0, 0, 0, 0, 1}}, std::move(backend),
                                    *ram_, *loop_);
    CHECK_OK(device.status());
    device_ = *std::move(device);
    device_->Resume();
    Activate(~uint64_t{0}, true, true);
  }
  ~Machine() { Reset(); }

  void Activate(uint64_t features, bool event_index, bool indirect) {
    std::vector<std::unique_ptr<Virtqueue>> queues;
    for (uint16_t i = 0; i < kQueues; ++i) {
      const DriverQueue driver(*ram_, kQueueBase + i * kQueueStride, kRingSize, event_index,
                               indirect);
      queues.push_back(*Virtqueue::Create(*ram_, driver.setup()));
    }
    device_->Activate(transport_, device_->features() & features, std::move(queues));
  }
  void Reset() {
    if (quiesced_) TogglePause();
    bool done = false;
    device_->Reset([&done] { done = true; });
    CHECK(done);
    Settle();
    CHECK_OK(ram_->Zero(kQueueBase, kQueues * kQueueStride));
  }
  void TogglePause() {
    if (std::exchange(quiesced_, !quiesced_)) return device_->Resume();
    bool done = false;
    device_->Quiesce([&done] { done = true; });
    CHECK(done);
  }
  // What was posted is done, bounded: a flood is served for as long as it lasts.
  void Settle() {
    for (int round = 0; round < 3; ++round) {
      bool turned = false;
      loop_->Post([&turned] { turned = true; });
      loop_->RunUntil([&turned] { return turned; });
    }
    CheckSent();
  }
  // A network may rely on the header of what it gets.
  void CheckSent() {
    for (uint16_t i = 0; i < backend_->queue_pairs(); ++i) {
      for (const auto& sent : backend_->queue(i).sent) {
        const size_t frame = sent.size() - net_wire::kHeaderBytes;
        CHECK(sent.size() >= net_wire::kHeaderBytes + 14 && frame <= net::kLargestFrame);
        const bool bare = backend_->offloads() == net::Offloads{};
        CHECK(!bare || (sent[net_wire::kHeaderFlags] == 0 && sent[net_wire::kHeaderGsoType] == 0));
        if ((sent[net_wire::kHeaderFlags] & net_wire::kNeedsChecksum) != 0) {
          CHECK(LoadLe<uint16_t>(&sent[net_wire::kHeaderChecksumStart]) +
                    size_t{LoadLe<uint16_t>(&sent[net_wire::kHeaderChecksumOffset])} + 2 <=
                frame);
        }
        if (sent[net_wire::kHeaderGsoType] != net_wire::kGsoNone) {
          CHECK(LoadLe<uint16_t>(&sent[net_wire::kHeaderGsoSize]) != 0);
          CHECK(LoadLe<uint16_t>(&sent[net_wire::kHeaderLength]) <= frame);
        }
      }
      backend_->queue(i).sent.clear();
    }
  }

  void Step(FuzzInput& input) {
    const auto operation = input.Take<uint8_t>();
    const auto which = input.Take<uint8_t>();
    const auto queue = static_cast<uint16_t>(which % kQueues);
    switch (operation % 12) {
      case 0: {  // guest memory below the guard
        const auto at = input.Take<uint32_t>() % (kGuarded - 8);
        CHECK_OK(ram_->WriteObject(at, input.Take<uint64_t>()));
        break;
      }
      case 1: {  // a descriptor that stays below the guard
        const auto index = static_cast<uint64_t>(input.Take<uint8_t>() % kRingSize);
        const uint64_t at = input.Take<uint32_t>() % kGuarded;
        const uint64_t length = input.Take<uint32_t>() % (kGuarded - at + 1);
        const uint64_t gpa = kQueueBase + queue * kQueueStride + 16 * index;
        CHECK_OK(ram_->WriteObject(gpa, at));
        CHECK_OK(ram_->WriteObject(gpa + 8, static_cast<uint32_t>(length)));
        CHECK_OK(ram_->WriteObject(gpa + 12, input.Take<uint32_t>()));
        break;
      }
      case 2: {  // offers one
        const uint64_t ring = kQueueBase + queue * kQueueStride + 16 * kRingSize;
        const uint16_t index = *ram_->ReadObject<uint16_t>(ring + 2);
        CHECK_OK(ram_->WriteObject(ring + 4 + 2 * uint64_t(index % kRingSize),
                                   static_cast<uint16_t>(input.Take<uint8_t>() % (kRingSize + 1))));
        CHECK_OK(ram_->WriteObject(ring + 2, static_cast<uint16_t>(index + 1)));
        break;
      }
      case 3:
        device_->OnDoorbell(queue);
        Settle();
        break;
      case 4: {  // from the network
        FakeBackend::Bytes frame(input.Take<uint16_t>() + net_wire::kHeaderBytes);
        // What decides its way: headers of all layers.
        for (size_t i = 0; i < std::min<size_t>(frame.size(), net_wire::kHeaderBytes + which);
             ++i) {
          frame[i] = input.Take<uint8_t>();
        }
        backend_->queue(which % backend_->queue_pairs()).Arrive(std::move(frame));
        Settle();
        break;
      }
      case 5:
        backend_->queue(which % backend_->queue_pairs()).MakeRoom(input.Take<uint8_t>());
        Settle();
        break;
      case 6:
        backend_->SetLink((which & 1) != 0);
        device_->SetLink((which & 2) != 0, [] {});
        Settle();
        break;
      case 7:
        TogglePause();
        Settle();
        break;
      case 8: {
        Reset();
        const auto features = input.Take<uint64_t>();
        Activate(features, (which & 1) != 0, (which & 2) != 0);
        break;
      }
      case 9: {
        std::array<uint8_t, 4> data{};
        device_->ReadConfig(which, data);
        Settle();
        break;
      }
      case 10: {  // another network, which can do everything or nothing
        device_->SetLink(false, nullptr);
        auto next =
            std::make_unique<FakeBackend>(static_cast<uint16_t>(1 + (which >> 1) % kPairs),
                                          (which & 1) != 0 ? FakeBackend::kAll : net::Offloads{});
        backend_ = next.get();
        (void)device_->ExchangeBackend(std::move(next));
        device_->SetLink(true, nullptr);
        Settle();
        break;
      }
      case 11:
        Steer(which, input);
        break;
    }
  }

 private:
  // A command to steer by flows that is right but for what the input says.
  void Steer(uint8_t which, FuzzInput& input) {
    std::vector<uint8_t> command = {net_wire::kClassMultiqueue, net_wire::kMultiqueueRss};
    const auto append = [&command](auto value) {
      command.resize(command.size() + sizeof value);
      StoreLe(&command[command.size() - sizeof value], value);
    };
    const auto entries = static_cast<uint16_t>(1 << (which % 9));
    append(uint32_t{input.Take<uint8_t>()});
    append(static_cast<uint16_t>(entries - 1 + (which >> 7)));
    append(static_cast<uint16_t>(input.Take<uint8_t>() % (kPairs + 1)));
    for (uint16_t i = 0; i < entries; ++i) {
      append(static_cast<uint16_t>(i % 8 == 7 ? input.Take<uint8_t>() : i % kPairs));
    }
    append(static_cast<uint16_t>(input.Take<uint8_t>() % (kPairs + 2)));
    const auto key = static_cast<uint8_t>(input.Take<uint8_t>() % 48);
    append(key);
    for (uint8_t i = 0; i < key; ++i) append(input.Take<uint8_t>());
    if (input.Take<uint8_t>() % 8 == 0) command.pop_back();
    CHECK_OK(ram_->Write(kCommand, command));
    // A chain of two: the command, and a byte for the answer.
    const uint64_t ring = kQueueBase + 2 * kPairs * kQueueStride;
    CHECK_OK(ram_->WriteObject(ring, kCommand));
    CHECK_OK(ram_->WriteObject(ring + 8, static_cast<uint32_t>(command.size())));
    CHECK_OK(ram_->WriteObject(ring + 12, uint32_t{DriverQueue::kNext | (1 << 16)}));
    CHECK_OK(ram_->WriteObject(ring + 16, kCommand));
    CHECK_OK(ram_->WriteObject(ring + 24, uint32_t{1}));
    CHECK_OK(ram_->WriteObject(ring + 28, uint32_t{DriverQueue::kWrite}));
    const uint64_t available = ring + 16 * kRingSize;
    const uint16_t index = *ram_->ReadObject<uint16_t>(available + 2);
    CHECK_OK(ram_->WriteObject(available + 4 + 2 * uint64_t(index % kRingSize), uint16_t{0}));
    CHECK_OK(ram_->WriteObject(available + 2, static_cast<uint16_t>(index + 1)));
    device_->OnDoorbell(2 * kPairs);
    Settle();
  }

  const testing::GuardedRam ram_{kRamBytes, kGuarded};
  std::unique_ptr<IoLoop> loop_ = *IoLoop::Create({.engine = IoLoop::Engine::kThreadPool});
  testing::QuietTransport transport_{kQueues};
  FakeBackend* backend_ = nullptr;
  std::unique_ptr<NetDevice> device_;
  bool quiesced_ = false;
};

}  // namespace
}  // namespace bothy::virtio

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  bothy::ConfigureLogging({.level = bothy::LogLevel::kError});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bothy::FuzzInput input({data, size});
  bothy::virtio::Machine machine;
  for (int step = 0; step < 512 && !input.empty(); ++step) machine.Step(input);
  return 0;
}
