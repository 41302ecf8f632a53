#include "virtio/vsock/vsock_device.h"

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "support/endian.h"

namespace bothy::virtio {

using namespace vsock;  // NOLINT(google-build-using-namespace): all of it is the wire's

namespace {

constexpr size_t kConfigBytes = 8;  // guest_cid (5.10.4)
// Data in buffers of 4 KiB, as drivers make them, comes in batches as long as the queue.
constexpr uint16_t kReceiveQueueSize = 512;
constexpr uint16_t kTransmitQueueSize = 128;
constexpr uint16_t kEventQueueSize = 16;
// Ports of the host for connections that it begins, apart from those that services choose.
constexpr uint32_t kFirstHostPort = 1U << 30;
constexpr uint32_t kLastHostPort = (1U << 31) - 1;

}  // namespace

VsockDevice::VsockDevice(VsockDeviceOptions options, const sockets::PortTable& ports, IoLoop& loop)
    : options_(std::move(options)),
      ports_(ports),
      loop_(loop),
      queue_sizes_{kReceiveQueueSize, kTransmitQueueSize, kEventQueueSize},
      next_host_port_(kFirstHostPort),
      rounds_(loop, [this](uint16_t queue) {
        if (queue == kReceiveQueue) ServeReceive();
        if (queue == kTransmitQueue) ServeTransmit();
      }) {
  CHECK(options_.guest_cid >= kFirstGuestCid && options_.guest_cid <= kLastGuestCid);
}

VsockDevice::~VsockDevice() = default;

void VsockDevice::ReadConfig(uint64_t offset, std::span<uint8_t> data) {
  std::array<uint8_t, kConfigBytes> config{};
  StoreLe<uint64_t>(config.data(), options_.guest_cid);
  ReadConfigFrom(config, offset, data);
}

void VsockDevice::Activate(Transport& transport, uint64_t /*features*/,
                           std::vector<std::unique_ptr<Virtqueue>> queues) {
  transport_ = &transport;
  receive_ = std::move(queues[kReceiveQueue]);
  transmit_ = std::move(queues[kTransmitQueue]);
  events_ = std::move(queues[kEventQueue]);
  broken_ = false;
  ServeTransmit();
  ServeReceive();
}

void VsockDevice::OnDoorbell(uint16_t queue) {
  if (queue == kReceiveQueue) ServeReceive();
  if (queue == kTransmitQueue) ServeTransmit();
}

void VsockDevice::Quiesce(std::function<void()> done) {
  // What a guest said last before it stopped: a program that waits for it needn't wait for a guest
  // that never runs again.
  ServeTransmit();
  quiesced_ = true;
  done();
}

void VsockDevice::Resume() {
  quiesced_ = false;
  ServeTransmit();
  ServeReceive();
}

void VsockDevice::Reset(std::function<void()> done) {
  transport_ = nullptr;
  receive_.reset();
  transmit_.reset();
  events_.reset();
  broken_ = false;
  transmit_stalled_ = false;
  resets_.clear();
  // Who hasn't been asked for waits for the next driver.
  for (auto next = connections_.begin(); next != connections_.end();) {
    Connection& connection = *(next++)->second;
    if (!connection.request_due) Remove(connection, Going::kWhenRead);
  }
  done();
}

void VsockDevice::Broken(const absl::Status& reason) {
  broken_ = true;
  transport_->NeedsReset(reason);
}

// --- connections ---------------------------------------------------------------------------------

Connection& VsockDevice::AddConnection(const Ports& ports, bool open, UniqueFd socket) {
  auto stream = std::make_unique<sockets::HostStream>(
      std::move(socket), loop_,
      sockets::HostStream::Callbacks{.on_readable = [this, ports] { OnHostReadable(ports); },
                                     .on_written = [this, ports] { OnHostWritten(ports); }});
  auto connection = std::make_unique<Connection>(ports, open, std::move(stream));
  Connection& added = *connection;
  CHECK(connections_.emplace(ports, std::move(connection)).second);
  return added;
}

void VsockDevice::Connect(uint32_t port, UniqueFd socket) {
  if (connections() >= kMostConnections) {
    ++refused_;
    return;
  }
  // Fewer connections than ports: one is free.
  Ports ports{.guest = port, .host = next_host_port_};
  while (connections_.contains(ports)) {
    ports.host = ports.host == kLastHostPort ? kFirstHostPort : ports.host + 1;
  }
  next_host_port_ = ports.host == kLastHostPort ? kFirstHostPort : ports.host + 1;
  Connection& connection = AddConnection(ports, /*open=*/false, std::move(socket));
  connection.request_due = true;
  // In case that it leaves before there is an answer.
  connection.stream().AwaitReadable();
  MarkReady(connection);
  ServeReceive();
}

void VsockDevice::Remove(Connection& connection, Going going) {
  NotReady(connection);
  std::unique_ptr<sockets::HostStream> stream = connection.TakeStream();
  connections_.erase(connection.ports());
  if (going == Going::kWhenRead && stream->kept() != 0 && !stream->broken()) {
    Linger(std::move(stream));
  }
}

void VsockDevice::Linger(std::unique_ptr<sockets::HostStream> stream) {
  const auto place = lingering_.insert(lingering_.end(), std::move(stream));
  (*place)->SetCallbacks({.on_readable = {}, .on_written = [this, place] {
                            if ((*place)->kept() == 0) lingering_.erase(place);
                          }});
  (*place)->EndWriting();
}

void VsockDevice::RemoveWithReset(Connection& connection, Going going) {
  resets_.push_back(HeaderFor(connection, kReset));
  Remove(connection, going);
}

void VsockDevice::MarkReady(Connection& connection) {
  if (connection.ready.has_value()) return;
  connection.ready = ready_.insert(ready_.end(), &connection);
}

void VsockDevice::NotReady(Connection& connection) {
  if (!connection.ready.has_value()) return;
  ready_.erase(*connection.ready);
  connection.ready.reset();
}

void VsockDevice::OnHostReadable(const Ports& ports) {
  Connection& connection = *connections_.at(ports);
  if (!connection.open()) {
    // Data may have come early; it waits for the guest's answer.
    if (!connection.stream().PeerHasClosed()) return;
    if (!connection.asked) return Remove(connection, Going::kAtOnce);
    RemoveWithReset(connection, Going::kAtOnce);
  } else {
    connection.reads = true;
    MarkReady(connection);
  }
  ServeReceive();
}

void VsockDevice::OnHostWritten(const Ports& ports) {
  Connection& connection = *connections_.at(ports);
  if (connection.stream().broken()) {
    RemoveWithReset(connection, Going::kAtOnce);
  } else {
    if (!connection.OwesCredit()) return;
    connection.credit_update_due = true;
    MarkReady(connection);
  }
  ServeReceive();
}

PacketHeader VsockDevice::HeaderFor(Connection& connection, uint16_t operation) const {
  PacketHeader header{.source_cid = kHostCid,
                      .destination_cid = options_.guest_cid,
                      .source_port = connection.ports().host,
                      .destination_port = connection.ports().guest,
                      .type = kTypeStream,
                      .operation = operation};
  connection.TellCredit(header);
  return header;
}

// --- inspection ----------------------------------------------------------------------------------

void VsockDevice::Inspect(inspect::Node& node) const {
  node.Value("guest_cid", options_.guest_cid);
  node.Value("driver_active", transport_ != nullptr);
  node.Value("connections_open", connections_.size());
  node.Value("connections_lingering", lingering_.size());
  node.Value("connections_ready", ready_.size());
  node.Value("connected_by_guest", connected_by_guest_);
  node.Value("connected_by_host", connected_by_host_);
  node.Value("refused", refused_);
  node.Value("rounds", rounds_served_);
  node.Value("packets_from_guest", packets_from_guest_);
  node.Value("packets_to_guest", packets_to_guest_);
  node.Value("bytes_from_guest", bytes_from_guest_);
  node.Value("bytes_to_guest", bytes_to_guest_);
  node.Value("resets_sent", resets_sent_);
  node.Value("resets_waiting", resets_.size());
  node.Value("receive_starved", starved_);
  node.Child("connections", [this](inspect::Node& all) {
    for (const auto& [ports, connection] : connections_) {
      all.Child(absl::StrCat(ports.guest, "-", ports.host), *connection);
    }
  });
}

}  // namespace bothy::virtio
