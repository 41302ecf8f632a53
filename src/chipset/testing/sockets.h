// What tests of sockets on paths need: files and sockets of others, and a peer that blocks.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "support/unique_fd.h"

namespace bothy::chipset {

inline bool Exists(const std::string& path) {
  struct stat status;
  return ::lstat(path.c_str(), &status) == 0;
}

inline void WriteFile(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
}

inline size_t OpenDescriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

inline sockaddr_un UnixAddress(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  return address;
}

// A socket that only has been bound, as a server that died leaves it, or one that listens.
inline UniqueFd BindSocket(const std::string& path, bool listen, int type = SOCK_STREAM) {
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  const sockaddr_un address = UnixAddress(path);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  if (listen) {
    EXPECT_EQ(::listen(fd.get(), 4), 0);
  }
  return fd;
}

// One end of a stream; blocks, but for a minute at most.
class Peer {
 public:
  Peer() = default;
  explicit Peer(UniqueFd fd) : fd_(std::move(fd)) {
    const timeval minute = {.tv_sec = 60, .tv_usec = 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &minute, sizeof minute);
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &minute, sizeof minute);
  }
  static Peer Connect(const std::string& path) {
    Peer peer(UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
    const sockaddr_un address = UnixAddress(path);
    EXPECT_EQ(::connect(peer.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0)
        << std::strerror(errno);
    return peer;
  }
  static Peer Accept(const UniqueFd& listener) {
    pollfd poll = {.fd = listener.get(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(::poll(&poll, 1, 60'000), 1);
    return Peer(UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)));
  }

  [[nodiscard]] int fd() const { return fd_.get(); }
  void Close() { fd_.Reset(); }
  void Send(const std::string& bytes) {
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t size =
          ::send(fd_.get(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      ASSERT_GT(size, 0) << std::strerror(errno);
      sent += static_cast<size_t>(size);
    }
  }
  // Exactly `size` bytes, or what came before the end.
  std::string Read(size_t size) {
    std::string bytes(size, '\0');
    size_t read = 0;
    while (read < size) {
      const ssize_t n = ::recv(fd_.get(), bytes.data() + read, size - read, 0);
      if (n <= 0) {
        EXPECT_EQ(n, 0) << std::strerror(errno);
        break;
      }
      read += static_cast<size_t>(n);
    }
    bytes.resize(read);
    return bytes;
  }
  // What is there, once something is; empty at the end.
  std::string ReadSome() {
    std::string bytes(4096, '\0');
    const ssize_t n = ::recv(fd_.get(), bytes.data(), bytes.size(), 0);
    EXPECT_GE(n, 0) << std::strerror(errno);
    bytes.resize(n > 0 ? static_cast<size_t>(n) : 0);
    return bytes;
  }
  std::string ReadToEnd() {
    std::string all;
    for (;;) {
      const std::string bytes = ReadSome();
      if (bytes.empty()) return all;
      all += bytes;
    }
  }
  // Whether anything is there to read now.
  [[nodiscard]] bool Readable() const {
    pollfd poll = {.fd = fd_.get(), .events = POLLIN, .revents = 0};
    return ::poll(&poll, 1, 0) == 1;
  }

 private:
  UniqueFd fd_;
};

}  // namespace bothy::chipset
