// NetDeviceTest: the fixture of tests of a network card: a driver, a device and a network, all on
// one thread.
#pragma once

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "inspect/inspection.h"
#include "support/check.h"
#include "support/endian.h"
#include "support/io_loop.h"
#include "support/unique_fd.h"
#include "virtio/net/net_device.h"
#include "virtio/net/wire.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/fake_backend.h"
#include "virtio/testing/test_transport.h"

namespace bothy::virtio::testing {

inline constexpr MacBytes kMac = {0x02, 0, 0, 0, 0, 0x77};

// Keeps what the driver is told. Doorbells and interrupts of queues that the host's kernel serves
// are eventfds.
class RecordingTransport final : public TestTransport {
 public:
  void InterruptQueue(uint16_t queue) override { ++interrupts[queue]; }
  void ConfigChanged() override { ++config_changes; }
  void NeedsReset(const absl::Status& reason) override { broken = std::string(reason.message()); }
  int LendDoorbell(uint16_t queue) override {
    lent.insert(queue);
    return Event(doorbells_[queue]);
  }
  void ReturnDoorbell(uint16_t queue) override { lent.erase(queue); }
  absl::StatusOr<int> InterruptEvent(uint16_t queue) override {
    return Event(interrupt_events_[queue]);
  }

  // Waits for an interrupt by the host's kernel.
  void AwaitInterrupt(uint16_t queue) {
    eventfd_t count = 0;
    CHECK(::eventfd_read(Event(interrupt_events_[queue]), &count) == 0);
  }

  std::map<uint16_t, int> interrupts;
  int config_changes = 0;
  std::string broken;
  std::set<uint16_t> lent;  // doorbells

 private:
  static int Event(UniqueFd& event) {
    if (!event) event = UniqueFd(::eventfd(0, EFD_CLOEXEC));
    CHECK(event);
    return event.get();
  }
  std::map<uint16_t, UniqueFd> doorbells_;
  std::map<uint16_t, UniqueFd> interrupt_events_;
};

// Ethernet: to, from, type, payload 0, 1, 2...
inline FakeFrameQueue::Bytes Frame(const MacBytes& to, size_t payload) {
  FakeFrameQueue::Bytes frame(to.begin(), to.end());
  frame.insert(frame.end(), {0x52, 0x54, 0, 0, 0, 1, 0x08, 0x00});
  for (size_t i = 0; i < payload; ++i) frame.push_back(static_cast<uint8_t>(i));
  return frame;
}
inline FakeFrameQueue::Bytes WithHeader(const FakeFrameQueue::Bytes& frame,
                                        const FrameHeader& header = {}) {
  FakeFrameQueue::Bytes bytes(header.begin(), header.end());
  bytes.insert(bytes.end(), frame.begin(), frame.end());
  return bytes;
}

class NetDeviceTest : public ::testing::Test {
 protected:
  using Buffer = DriverQueue::Buffer;
  using Bytes = FakeFrameQueue::Bytes;
  static constexpr uint16_t kPairs = 2;
  static constexpr uint16_t kRingSize = 256;
  static constexpr uint64_t kRings = 0x1000;
  static constexpr uint64_t kRingStride = 0x3000;
  static constexpr uint64_t kCommand = 0x40000;
  static constexpr uint64_t kAnswer = 0x42000;
  static constexpr uint64_t kFrame = 0x50000;
  static constexpr uint64_t kReceive = 0x80000;
  static constexpr uint64_t kUsual = ~uint64_t{0};  // all that is offered

  NetDeviceTest() {
    MakeRings();
    Make(FakeBackend::kAll);
  }
  ~NetDeviceTest() override { Reset(); }

  void Make(const net::Offloads& offloads) {
    auto backend = std::make_unique<FakeBackend>(kPairs, offloads);
    backend_ = backend.get();
    auto device =
        NetDevice::Create({.name = "net0", .mac = kMac}, std::move(backend), *ram_, *loop_);
    CHECK_OK(device.status());
    device_ = *std::move(device);
    device_->Resume();
  }
  void Activate(uint64_t features = kUsual) {
    std::vector<std::unique_ptr<Virtqueue>> queues;
    for (DriverQueue& driver : drivers_) {
      queues.push_back(*Virtqueue::Create(*ram_, driver.setup()));
    }
    device_->Activate(transport_, device_->features() & features, std::move(queues));
  }
  void Reset() {
    bool done = false;
    device_->Reset([&done] { done = true; });
    CHECK(done);
    Turn();
  }
  // Reset, and a driver that knows nothing of the one before.
  void StartAnew() {
    Reset();
    CHECK_OK(ram_->Zero(kRings, (2 * kPairs + 1) * kRingStride));
    MakeRings();
  }
  // What was posted is done.
  void Turn() {
    for (int round = 0; round < 40; ++round) {
      bool turned = false;
      loop_->Post([&turned] { turned = true; });
      loop_->RunUntil([&turned] { return turned; });
    }
  }
  void Ring(uint16_t queue) {
    // One that is lent is the kernel's to hear.
    if (transport_.lent.contains(queue)) {
      CHECK(::eventfd_write(transport_.LendDoorbell(queue), 1) == 0);
    } else {
      device_->OnDoorbell(queue);
    }
    Turn();
  }

  void Write(uint64_t gpa, const Bytes& bytes) { CHECK_OK(ram_->Write(gpa, bytes)); }
  Bytes Read(uint64_t gpa, size_t size) {
    Bytes bytes(size);
    CHECK_OK(ram_->Read(gpa, bytes));
    return bytes;
  }
  // Sends a frame in pieces; whether it was given back.
  bool Send(const Bytes& bytes, uint16_t pair = 0) {
    Write(kFrame, bytes);
    const auto size = static_cast<uint32_t>(bytes.size());
    const uint32_t first = std::min<uint32_t>(size, 20);
    std::vector<Buffer> buffers = {{kFrame, first}};
    if (size > first) buffers.push_back({kFrame + first, size - first});
    CHECK(drivers_[net_wire::TransmitIndex(pair)].Add(buffers).has_value());
    Ring(net_wire::TransmitIndex(pair));
    return drivers_[net_wire::TransmitIndex(pair)].TakeUsed().has_value();
  }
  FakeFrameQueue& network(uint16_t pair = 0) { return backend_->queue(pair); }
  void Offer(uint64_t gpa, uint32_t bytes, uint16_t pair = 0) {
    const std::array<Buffer, 1> buffers = {{{gpa, bytes, true}}};
    CHECK(drivers_[net_wire::ReceiveIndex(pair)].Add(buffers).has_value());
  }
  uint8_t Command(uint8_t command_class, uint8_t command, const Bytes& data,
                  uint16_t queue = 2 * kPairs) {
    Bytes bytes = {command_class, command};
    bytes.insert(bytes.end(), data.begin(), data.end());
    Write(kCommand, bytes);
    Write(kAnswer, {0xEE});
    const std::array<Buffer, 2> buffers = {
        {{kCommand, static_cast<uint32_t>(bytes.size())}, {kAnswer, 1, true}}};
    CHECK(drivers_[queue].Add(buffers).has_value());
    Ring(queue);
    const auto used = drivers_[queue].TakeUsed();
    EXPECT_TRUE(used.has_value());
    return Read(kAnswer, 1)[0];
  }
  uint16_t Status() {
    std::array<uint8_t, 2> status{};
    device_->ReadConfig(net_wire::kConfigStatus, status);
    return LoadLe<uint16_t>(status.data());
  }

  // What the state tree shows at `path`, which is a T there.
  template <typename T>
  T Inspected(const std::string& path) {
    const absl::StatusOr<inspect::Query> query = inspect::Query::Parse(path, 0);
    CHECK_OK(query.status());
    std::optional<T> found;
    inspect::Inspection::Start(
        *query, [this](inspect::Node& node) { device_->Inspect(node); },
        [&](const absl::StatusOr<inspect::Value>& value) {
          CHECK_OK(value.status());
          found = std::get<T>(value->AsVariant());
        });
    CHECK(found.has_value());
    return *found;
  }

  std::unique_ptr<memory::GuestMemory> ram_ = TestRam(2 << 20);
  std::unique_ptr<IoLoop> loop_ = *IoLoop::Create();
  RecordingTransport transport_;
  std::vector<DriverQueue> drivers_;
  FakeBackend* backend_ = nullptr;
  std::unique_ptr<NetDevice> device_;

 private:
  void MakeRings() {
    drivers_.clear();
    for (uint16_t i = 0; i <= 2 * kPairs; ++i) {
      drivers_.emplace_back(*ram_, kRings + i * kRingStride, kRingSize);
    }
  }
};

}  // namespace bothy::virtio::testing
