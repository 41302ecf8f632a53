// VsockDevice: a virtio socket device (virtio 1.2, 5.10) over Unix sockets of the host.
//
// A guest that connects to a port of the host gets the socket that the port table names; programs
// of the host reach ports of the guest by Connect. Data goes from the guest's buffers into the
// socket and from the socket into the guest's buffers, one system call for many of them. What is
// kept for each connection, connections, and answers that wait for the driver's buffers are all
// bounded: while answers wait, nothing more is taken from the driver (5.10.6.1.1).
//
// Everything on the thread of `loop`, but ReadConfig and WriteConfig.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "inspect/node.h"
#include "sockets/port_table.h"
#include "support/io_loop.h"
#include "support/unique_fd.h"
#include "virtio/device.h"
#include "virtio/queue/serving_rounds.h"
#include "virtio/vsock/connection.h"
#include "virtio/vsock/packet.h"

namespace bothy::virtio {

struct VsockDeviceOptions {
  std::string name;        // "vsock0"
  uint64_t guest_cid = 3;  // vsock::kFirstGuestCid to kLastGuestCid
};

class VsockDevice final : public Device {
 public:
  // Connections at once, those that are going included.
  static constexpr size_t kMostConnections = 2048;

  // `ports` and `loop` outlive the device.
  VsockDevice(VsockDeviceOptions options, const sockets::PortTable& ports, IoLoop& loop);
  // Closes every connection.
  ~VsockDevice() override;

  // A program of the host wants `port` of the guest. It gets its answer (sockets/connect_line.h)
  // when the guest has accepted; `socket` is closed when it doesn't. While there is no driver it
  // waits.
  void Connect(uint32_t port, UniqueFd socket);

  // Device.
  [[nodiscard]] uint16_t type() const override { return kDeviceTypeSocket; }
  [[nodiscard]] const std::string& name() const override { return options_.name; }
  [[nodiscard]] uint64_t features() const override { return vsock::kFeatureStream; }
  [[nodiscard]] const std::vector<uint16_t>& queue_sizes() const override { return queue_sizes_; }
  void ReadConfig(uint64_t offset, std::span<uint8_t> data) override;
  // Nothing in it is the driver's to write.
  void WriteConfig(uint64_t, std::span<const uint8_t>) override {}
  void Activate(Transport& transport, uint64_t features,
                std::vector<std::unique_ptr<Virtqueue>> queues) override;
  void OnDoorbell(uint16_t queue) override;
  void Quiesce(std::function<void()> done) override;
  void Resume() override;
  void Reset(std::function<void()> done) override;

  [[nodiscard]] size_t connections() const { return connections_.size() + lingering_.size(); }
  void Inspect(inspect::Node& node) const;

 private:
  using Connection = vsock::Connection;
  using PacketHeader = vsock::PacketHeader;
  using Ports = vsock::Ports;
  // A buffer of the driver that is being filled.
  struct Held {
    uint16_t head;
    size_t first_piece;  // of pieces_
    size_t pieces;
    uint32_t room;  // for payload
  };
  enum class Going : uint8_t {
    kAtOnce,    // what is kept is lost
    kWhenRead,  // the host's program gets what is kept
  };

  [[nodiscard]] bool serving() const { return transport_ != nullptr && !quiesced_ && !broken_; }
  void Broken(const absl::Status& reason);

  // Connections.
  Connection& AddConnection(const Ports& ports, bool open, UniqueFd socket);
  void Remove(Connection& connection, Going going);
  // The same, and the guest is told by a reset.
  void RemoveWithReset(Connection& connection, Going going);
  void Linger(std::unique_ptr<sockets::HostStream> stream);
  void MarkReady(Connection& connection);
  void NotReady(Connection& connection);
  void OnHostReadable(const Ports& ports);
  void OnHostWritten(const Ports& ports);
  [[nodiscard]] PacketHeader HeaderFor(Connection& connection, uint16_t operation) const;

  // vsock_transmit.cc: what the guest sends.
  void ServeTransmit();
  [[nodiscard]] absl::Status TakePacket(const Chain& chain);
  void OnGuestRequest(const PacketHeader& header);
  void OnGuestPacket(Connection& connection, const PacketHeader& header, const Chain& chain);
  void OnGuestData(Connection& connection, const PacketHeader& header, const Chain& chain);
  void OnGuestShutdown(Connection& connection, uint32_t flags);
  void ReplyReset(const PacketHeader& to);

  // vsock_receive.cc: what the guest receives.
  void ServeReceive();
  // Pops a receive buffer. False, as all below: there is none, and the driver rings when there is;
  // or it broke the rules.
  [[nodiscard]] bool PopBuffer();
  [[nodiscard]] bool SendReset(const PacketHeader& header);
  [[nodiscard]] bool Send(Connection& connection, uint16_t operation, uint32_t flags = 0);
  void WriteHeader(const PacketHeader& header);
  [[nodiscard]] bool ServeConnection(Connection& connection);
  [[nodiscard]] bool SendDue(Connection& connection);
  [[nodiscard]] bool SendData(Connection& connection);
  [[nodiscard]] bool HoldBuffers(Connection& connection, uint32_t window);
  void UseBuffers(Connection& connection, size_t bytes);

  const VsockDeviceOptions options_;
  const sockets::PortTable& ports_;
  IoLoop& loop_;
  const std::vector<uint16_t> queue_sizes_;

  Transport* transport_ = nullptr;
  std::unique_ptr<Virtqueue> receive_;
  std::unique_ptr<Virtqueue> transmit_;
  std::unique_ptr<Virtqueue> events_;  // its buffers are for a migration that there isn't
  bool quiesced_ = true;
  bool broken_ = false;

  std::map<Ports, std::unique_ptr<Connection>> connections_;
  std::list<Connection*> ready_;     // those with something for the guest
  std::deque<PacketHeader> resets_;  // that wait for buffers
  // Of connections that the guest has closed: what is kept goes to the host's programs.
  std::list<std::unique_ptr<sockets::HostStream>> lingering_;
  uint32_t next_host_port_;
  bool transmit_stalled_ = false;  // until resets_ have gone

  Chain chain_;
  std::vector<Held> held_;
  std::vector<iovec> pieces_;   // of the buffers held
  std::vector<iovec> payload_;  // where data goes in them
  std::vector<iovec> behind_;
  ServingRounds rounds_;

  uint64_t rounds_served_ = 0;  // times that it has looked for what there is to do
  uint64_t packets_from_guest_ = 0;
  uint64_t packets_to_guest_ = 0;
  uint64_t bytes_from_guest_ = 0;
  uint64_t bytes_to_guest_ = 0;
  uint64_t connected_by_guest_ = 0;
  uint64_t connected_by_host_ = 0;
  uint64_t refused_ = 0;  // the host had no listener, or there were too many
  uint64_t resets_sent_ = 0;
  uint64_t starved_ = 0;  // times that the driver had no buffer for what was there
};

}  // namespace bothy::virtio
