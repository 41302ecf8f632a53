// Where --metrics listens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "support/status.h"
#include "support/unique_fd.h"
#include "support/unix_socket.h"

namespace bothy::metrics {

struct ListenAddress {
  std::string unix_path;  // not empty: a Unix socket, and the rest is empty
  std::string host;       // a name or numeric address, without brackets; empty: all of them
  uint16_t port = 0;      // 0: one that is free

  // "unix:PATH", "HOST:PORT", ":PORT" or "[IPV6]:PORT". InvalidArgument says what is wrong.
  static absl::StatusOr<ListenAddress> Parse(std::string_view text);
};

struct ListeningSocket {
  UniqueFd fd;       // non-blocking, close-on-exec
  SocketFile file;   // of a Unix socket
  std::string name;  // for people: "unix:/run/m.sock", "127.0.0.1:9100"
};

// May block for as long as the host's resolver takes, unless `host` is numeric. A stale Unix socket
// is replaced, mode 0600.
//   NotFound       no such host or folder
//   AlreadyExists  somebody listens there
absl::StatusOr<ListeningSocket> Listen(const ListenAddress& address);

}  // namespace bothy::metrics
