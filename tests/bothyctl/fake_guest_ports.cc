#include "tests/bothyctl/fake_guest_ports.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "support/check.h"
#include "tests/bothyctl/child.h"

namespace bothy::bothyctl {
namespace {

// False, after a failure, when nothing comes.
bool AwaitReadable(int fd) {
  pollfd state{.fd = fd, .events = POLLIN, .revents = 0};
  const bool ready = ::poll(&state, 1, static_cast<int>(Patience().count())) == 1;
  if (!ready) ADD_FAILURE() << "nothing came any more";
  return ready;
}

}  // namespace

FakeGuestPorts::FakeGuestPorts(const std::string& path) {
  auto listener = UnixListener::Create(path);
  CHECK_OK(listener.status());
  listener_ = *std::move(listener);
  socket_ = listener_.TakeSocket();
}

UniqueFd FakeGuestPorts::Accept(const std::string& line) {
  if (!AwaitReadable(socket_.get())) return UniqueFd();
  UniqueFd client(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_TRUE(client.valid()) << std::strerror(errno);
  EXPECT_EQ(Hear(client, line.size()), line);
  return client;
}

void Say(const UniqueFd& socket, const std::string& text) {
  EXPECT_EQ(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(text.size()));
}

std::string Hear(const UniqueFd& socket, size_t bytes) {
  std::string heard;
  char buffer[64 << 10];
  while (heard.size() < bytes && AwaitReadable(socket.get())) {
    const ssize_t result =
        ::recv(socket.get(), buffer, std::min(bytes - heard.size(), sizeof buffer), 0);
    if (result <= 0) break;
    heard.append(buffer, static_cast<size_t>(result));
  }
  return heard;
}

std::string HearEnd(const UniqueFd& socket) { return Hear(socket, SIZE_MAX); }

UniqueFd ConnectTcp(uint16_t port) {
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0)
      << std::strerror(errno);
  return socket;
}

}  // namespace bothy::bothyctl
