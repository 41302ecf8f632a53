// FakeGuestPorts: the socket by which programs of the host reach a guest (hvsocket_config.path),
// with the test in the guest's place.
//
//   FakeGuestPorts ports(path);
//   UniqueFd wanted = ports.Accept("CONNECT 22\n");
//   Say(wanted, "OK 1073741824\n");
//
// Nothing waits longer than Patience(); then the test fails.
#pragma once

#include <string>

#include "support/unique_fd.h"
#include "support/unix_socket.h"

namespace bothy::bothyctl {

class FakeGuestPorts {
 public:
  explicit FakeGuestPorts(const std::string& path);

  // The next connection, which has said `line`.
  [[nodiscard]] UniqueFd Accept(const std::string& line);

 private:
  UnixListener listener_;
  UniqueFd socket_;
};

// Sends all of it.
void Say(const UniqueFd& socket, const std::string& text);
// So many bytes, or fewer at the end.
[[nodiscard]] std::string Hear(const UniqueFd& socket, size_t bytes);
// Waits for the end; what comes before it.
[[nodiscard]] std::string HearEnd(const UniqueFd& socket);
// A program that connects to a port of 127.0.0.1.
[[nodiscard]] UniqueFd ConnectTcp(uint16_t port);

}  // namespace bothy::bothyctl
