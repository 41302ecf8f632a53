// Connection: one stream between a port of the guest and a port of the host, with the accounts of
// its flow control in both directions (virtio 1.2, 5.10.6.3).
//
// Plain state beside the host's end; VsockDevice moves the bytes. On the thread of its loop.
#pragma once

#include <compare>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include "inspect/node.h"
#include "sockets/host_stream.h"
#include "virtio/vsock/packet.h"

namespace bothy::virtio::vsock {

struct Ports {
  uint32_t guest = 0;
  uint32_t host = 0;
  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the comparison with 0 for one.
  auto operator<=>(const Ports&) const = default;
};

class Connection {
 public:
  // Room for what the guest sends and the host's program doesn't read: the most that is kept.
  static constexpr uint32_t kWindow = 256 * 1024;

  Connection(const Ports& ports, bool open, std::unique_ptr<sockets::HostStream> stream)
      : ports_(ports), open_(open), stream_(std::move(stream)) {}

  [[nodiscard]] const Ports& ports() const { return ports_; }
  [[nodiscard]] sockets::HostStream& stream() { return *stream_; }
  [[nodiscard]] std::unique_ptr<sockets::HostStream> TakeStream() { return std::move(stream_); }

  // Both sides have agreed to it; until then the guest has been, or is to be, asked.
  [[nodiscard]] bool open() const { return open_; }
  // The guest has accepted: `answer` goes to the host's program first.
  void Open(const std::string& answer);

  // The guest's account, as every packet of its shows it. False when it claims to have read what
  // was never sent to it.
  [[nodiscard]] bool HearCredit(const PacketHeader& header);
  // What the guest has room for.
  [[nodiscard]] uint32_t credit() const;
  void CountSent(size_t bytes) { sent_ += static_cast<uint32_t>(bytes); }

  // Whether the guest may send so much more.
  [[nodiscard]] bool MaySend(uint32_t bytes) const;
  void CountReceived(uint32_t bytes) { received_ += bytes; }
  // Whether the guest should be told of the room there is, since it can't see how much that is.
  [[nodiscard]] bool OwesCredit() const;
  // Puts our account into a header that is about to be sent.
  void TellCredit(PacketHeader& header);

  // What is to be sent to the guest, in that order; then data.
  bool request_due = false;
  bool response_due = false;
  bool credit_update_due = false;
  bool credit_request_due = false;
  uint32_t shutdown_due = 0;  // flags

  bool asked = false;             // the request has been sent
  bool reads = false;             // data is to be looked for in the host's socket
  bool credit_requested = false;  // since the guest last had room
  bool guest_sends = true;
  bool guest_receives = true;
  bool host_ended = false;  // its socket's end has been seen
  uint32_t buffers = 1;     // of the driver, that the next read is expected to fill
  // Where it is in the device's list of those that have something to send.
  std::optional<std::list<Connection*>::iterator> ready;

  void Inspect(inspect::Node& node) const;

 private:
  [[nodiscard]] uint32_t forwarded() const;

  const Ports ports_;
  bool open_;
  std::unique_ptr<sockets::HostStream> stream_;
  uint64_t answer_bytes_ = 0;  // written to the stream, but none of the guest's

  // Free-running counts of bytes, as the wire has them.
  uint32_t sent_ = 0;             // to the guest
  uint32_t guest_window_ = 0;     // its buf_alloc
  uint32_t guest_forwarded_ = 0;  // its fwd_cnt
  uint32_t received_ = 0;         // from the guest
  uint32_t told_ = 0;             // our fwd_cnt in the last packet that the guest was sent
};

}  // namespace bothy::virtio::vsock
