// SerialRelay: the other end of a serial port, relayed to a Unix socket (contract.md,
// serial_config).
//
// Who listens: at Create, if something listens on the path already, the relay connects to it; if
// not, it listens there itself (mode 0600; a stale socket is replaced). With `connect_only` it
// never listens, and Create fails when nobody is there.
//
// Listening, it serves one client at a time; the next waits in the socket's backlog until the first
// has left. A client first gets the last 64 KiB of what the guest printed, then what the guest
// prints, with no gap and nothing twice. Connecting, it tries again every second when the peer has
// gone, and continues where that peer's output ended.
//
// The guest never waits. Output goes through a ring of 256 KiB: a peer that falls further behind
// loses the oldest, which the log notes. Input waits at the peer until the guest has read what came
// before; what a client sent before it left is still delivered, as far as the socket's buffer held
// it.
//
// The peer is hostile: it costs the loop at most one bounded read or write a turn.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "chipset/serial/serial_backend.h"
#include "inspect/node.h"
#include "support/event_loop.h"
#include "support/status.h"

namespace bothy::chipset {

struct SerialRelayOptions {
  std::string name;         // "com1", in logs
  std::string socket_path;  // see ValidateSocketPath
  bool connect_only = false;
  // Between attempts to reach a peer that has gone.
  std::chrono::milliseconds retry_delay{1000};
};

// For inspection.
struct SerialRelayStatus {
  bool listening = false;  // else it connects
  bool connected = false;
  uint64_t connections = 0;           // so far
  uint64_t bytes_from_guest = 0;      // so far
  uint64_t bytes_to_guest = 0;        // so far
  uint64_t bytes_lost = 0;            // output that a slow peer missed
  uint64_t first_output_host_ns = 0;  // CLOCK_MONOTONIC at the guest's first byte; 0: none yet
};

// Transmit, OnReceiveRoom, Attach and Status: any thread. Output that is already in the ring when
// the relay is destroyed is passed on as far as the peer takes it without waiting.
class SerialRelay : public SerialBackend {
 public:
  static constexpr size_t kReplayBytes = size_t{64} * 1024;
  static constexpr size_t kBacklogBytes = size_t{256} * 1024;

  // Never blocks. `loop` must outlive the relay; nothing is left behind when this fails.
  //   InvalidArgument     not a path for a socket
  //   NotFound            its folder, or with connect_only the socket, isn't there
  //   FailedPrecondition  connect_only, and nobody listens
  //   AlreadyExists       something that isn't a stream socket is there
  //   PermissionDenied    as the host says
  static absl::StatusOr<std::unique_ptr<SerialRelay>> Create(EventLoop& loop,
                                                             SerialRelayOptions options);
  // Removes the path if it listens there. On the loop's thread sockets are closed when it returns;
  // on another one, soon after.
  ~SerialRelay() override;
  SerialRelay(const SerialRelay&) = delete;
  SerialRelay& operator=(const SerialRelay&) = delete;

  void Transmit(std::span<const uint8_t> bytes) override;
  void OnReceiveRoom() override;
  void Attach(SerialInput* input) override;

  [[nodiscard]] SerialRelayStatus Status() const;
  void Inspect(inspect::Node& node) const;

 private:
  class Connection;
  explicit SerialRelay(std::shared_ptr<Connection> connection);

  const std::shared_ptr<Connection> connection_;
};

}  // namespace bothy::chipset
