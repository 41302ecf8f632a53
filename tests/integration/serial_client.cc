#include "tests/integration/serial_client.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "support/check.h"

namespace bothy::integration {
namespace {

using Clock = std::chrono::steady_clock;

sockaddr_un Address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  CHECK(path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

UniqueFd NewSocket() {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  CHECK(socket.valid());
  return socket;
}

}  // namespace

UniqueFd ListenOn(const std::string& path) {
  UniqueFd socket = NewSocket();
  const sockaddr_un address = Address(path);
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0)
      << path << ": " << std::strerror(errno);
  EXPECT_EQ(::listen(socket.get(), 16), 0);
  return socket;
}

SerialClient::SerialClient(const std::string& path) : socket_(NewSocket()) {
  const sockaddr_un address = Address(path);
  EXPECT_EQ(::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
            0)
      << path << ": " << std::strerror(errno);
}

SerialClient SerialClient::Accept(const UniqueFd& listener) {
  UniqueFd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_TRUE(socket.valid()) << std::strerror(errno);
  return SerialClient(std::move(socket));
}

void SerialClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    ASSERT_GT(sent, 0) << std::strerror(errno);
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

bool SerialClient::Receive(Clock::time_point deadline) {
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  pollfd poll = {.fd = socket_.get(), .events = POLLIN, .revents = 0};
  if (::poll(&poll, 1, static_cast<int>(std::max<int64_t>(left, 0))) <= 0) return false;
  char buffer[16384];
  const ssize_t size = ::recv(socket_.get(), buffer, sizeof buffer, 0);
  if (size <= 0) return false;
  received_.append(buffer, static_cast<size_t>(size));
  return true;
}

std::string SerialClient::ReadUntil(std::string_view text) {
  const Clock::time_point deadline = Clock::now() + kPatience;
  size_t at = received_.find(text);
  for (size_t looked_at = 0; at == std::string::npos; at = received_.find(text, looked_at)) {
    looked_at = received_.size() - std::min(received_.size(), text.size());
    if (!Receive(deadline)) {
      ADD_FAILURE() << "waiting for \"" << text << "\", got: " << received_;
      return std::exchange(received_, {});
    }
  }
  std::string read = received_.substr(0, at + text.size());
  received_.erase(0, read.size());
  return read;
}

std::string SerialClient::Read(size_t size) {
  const Clock::time_point deadline = Clock::now() + kPatience;
  while (received_.size() < size) {
    if (!Receive(deadline)) {
      ADD_FAILURE() << "waiting for " << size << " bytes, got " << received_.size();
      return std::exchange(received_, {});
    }
  }
  std::string read = received_.substr(0, size);
  received_.erase(0, size);
  return read;
}

std::string SerialClient::ReadToEnd() {
  const Clock::time_point deadline = Clock::now() + kPatience;
  while (Receive(deadline)) {
  }
  EXPECT_LT(Clock::now(), deadline) << "the other end never closed";
  return std::exchange(received_, {});
}

}  // namespace bothy::integration
