// A hostile driver and restless programs of the host: packets of any kind in any order, buffers or
// none, resets, pauses.
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "support/check.h"
#include "support/testing/fuzz_input.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/guarded_ram.h"
#include "virtio/testing/test_transport.h"
#include "virtio/vsock/vsock_device.h"

namespace bothy::virtio {
namespace {

constexpr uint64_t kCid = 3;
constexpr uint64_t kReceiveRing = 0x1000;
constexpr uint64_t kTransmitRing = 0x4000;
constexpr uint64_t kEventRing = 0x6000;
constexpr uint64_t kBuffers = 0x8000;
constexpr uint64_t kGuarded = 0x10'0000;
constexpr uint64_t kRamBytes = 0x20'0000;
constexpr uint16_t kQueueSize = 32;

class Machine {
 public:
  Machine() {
    device_.Resume();
    Activate();
  }
  ~Machine() {
    device_.Reset([] {});
  }

  void Step(FuzzInput& input) {
    switch (input.Take<uint8_t>() % 10) {
      case 0:
      case 1:
      case 2:
        SendPacket(input);
        break;
      case 3:  // buffers to receive into
        OfferBuffer(input.Take<uint8_t>() % 3, 40 + input.Take<uint8_t>());
        break;
      case 4: {  // any descriptor, but of what is guarded
        const bool receive = input.Take<uint8_t>() % 2 == 0;
        const uint64_t at =
            (receive ? kReceiveRing : kTransmitRing) + 16 * (input.Take<uint8_t>() % kQueueSize);
        Put<uint64_t>(at, kBuffers + input.Take<uint16_t>());
        Put<uint32_t>(at + 8, input.Take<uint16_t>());
        Put<uint16_t>(at + 12, input.Take<uint8_t>() % 8);
        Put<uint16_t>(at + 14, input.Take<uint8_t>());
        break;
      }
      case 5:
        HostConnects(input.Take<uint8_t>() % 4);
        break;
      case 6:
        HostActs(input.Take<uint8_t>(), input.Take<uint8_t>());
        break;
      case 7:
        if (std::exchange(paused_, !paused_)) {
          device_.Resume();
        } else {
          device_.Quiesce([] {});
        }
        break;
      case 8:
        device_.Reset([] {});
        Activate();
        break;
      case 9:
        while (receive_->TakeUsed().has_value() || transmit_->TakeUsed().has_value()) {
        }
        break;
    }
    CHECK(device_.connections() <= VsockDevice::kMostConnections);
    RunPosted();
  }

 private:
  void Activate() {
    CHECK_OK(ram_->Zero(kReceiveRing, kBuffers - kReceiveRing));
    receive_.emplace(*ram_, kReceiveRing, kQueueSize);
    transmit_.emplace(*ram_, kTransmitRing, kQueueSize);
    const testing::DriverQueue events(*ram_, kEventRing, kQueueSize);
    std::vector<std::unique_ptr<Virtqueue>> queues;
    queues.push_back(*Virtqueue::Create(*ram_, receive_->setup()));
    queues.push_back(*Virtqueue::Create(*ram_, transmit_->setup()));
    queues.push_back(*Virtqueue::Create(*ram_, events.setup()));
    device_.Activate(transport_, vsock::kFeatureStream, std::move(queues));
  }
  // Likely to be of a connection, and likely to be none that it expects.
  void SendPacket(FuzzInput& input) {
    const auto odd = input.Take<uint8_t>();
    const auto ports = input.Take<uint8_t>();
    vsock::PacketHeader header{.source_cid = kCid,
                               .destination_cid = vsock::kHostCid,
                               .source_port = ports % 4U,
                               .destination_port = (1U << 30) + ports / 4 % 8,
                               .length = input.Take<uint8_t>(),
                               .type = vsock::kTypeStream,
                               .operation = static_cast<uint16_t>(input.Take<uint8_t>() % 9),
                               .flags = input.Take<uint8_t>() % 4U,
                               .buffer_bytes = input.Take<uint16_t>(),
                               .forwarded_bytes = input.Take<uint8_t>()};
    if (odd == 1) header.source_cid = input.Take<uint64_t>();
    if (odd == 2) header.destination_cid = input.Take<uint64_t>();
    if (odd == 3) header.type = input.Take<uint16_t>();
    if (odd == 4) header.forwarded_bytes = input.Take<uint32_t>();
    if (odd == 5) header.length = input.Take<uint32_t>();
    if (odd == 6) header.operation = input.Take<uint16_t>();
    CHECK_OK(ram_->Write(kBuffers, header.ToBytes()));
    const uint32_t size = odd == 7 ? input.Take<uint8_t>() : 44U + input.Take<uint8_t>();
    const std::array<testing::DriverQueue::Buffer, 1> buffer = {
        testing::DriverQueue::Buffer{.gpa = kBuffers, .length = size}};
    (void)transmit_->Add(buffer);
    device_.OnDoorbell(vsock::kTransmitQueue);
  }
  void OfferBuffer(int count, uint32_t size) {
    const std::array<testing::DriverQueue::Buffer, 1> buffer = {
        testing::DriverQueue::Buffer{.gpa = kBuffers + 0x1000, .length = size, .writable = true}};
    for (int i = 0; i < count; ++i) (void)receive_->Add(buffer);
    device_.OnDoorbell(vsock::kReceiveQueue);
  }
  void HostConnects(uint32_t port) {
    if (hosts_.size() == 16) hosts_.erase(hosts_.begin());
    int ends[2];
    CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    device_.Connect(port, UniqueFd(ends[0]));
    hosts_.emplace_back(ends[1]);
  }
  void HostActs(uint8_t what, uint8_t which) {
    if (hosts_.empty()) return;
    const auto host = hosts_.begin() + which % static_cast<ptrdiff_t>(hosts_.size());
    std::array<uint8_t, 300> bytes{};
    switch (what % 4) {
      case 0:
        hosts_.erase(host);
        break;
      case 1:
        (void)::shutdown(host->get(), SHUT_WR);
        break;
      case 2:
        (void)::send(host->get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        break;
      case 3:
        (void)::recv(host->get(), bytes.data(), bytes.size(), 0);
        break;
    }
  }
  void RunPosted() {
    bool done = false;
    loop_->Post([&done] { done = true; });
    loop_->RunUntil([&done] { return done; });
  }
  template <typename T>
  void Put(uint64_t gpa, T value) {
    CHECK_OK(ram_->WriteObject(gpa, value));
  }

  const testing::GuardedRam ram_{kRamBytes, kGuarded};
  std::unique_ptr<IoLoop> loop_ =
      *IoLoop::Create({.engine = IoLoop::Engine::kThreadPool, .pool_threads = 1});
  testing::QuietTransport transport_{2};
  const sockets::PortTable ports_;
  std::optional<testing::DriverQueue> receive_;
  std::optional<testing::DriverQueue> transmit_;
  std::vector<UniqueFd> hosts_;
  VsockDevice device_{{.name = "vsock0", .guest_cid = kCid}, ports_, *loop_};
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
