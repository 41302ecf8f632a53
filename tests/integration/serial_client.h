// SerialClient: whoever is at the other end of a VM's serial port.
//
// Reads wait for bytes, never longer than kPatience: a test that would hang fails instead and
// shows what came.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "support/unique_fd.h"

namespace bothy::integration {

// A socket that listens on `path`.
[[nodiscard]] UniqueFd ListenOn(const std::string& path);

class SerialClient {
 public:
  static constexpr std::chrono::seconds kPatience{60};

  // Connects to the port's socket.
  explicit SerialClient(const std::string& path);
  // Takes the next connection to a listening socket.
  static SerialClient Accept(const UniqueFd& listener);

  void Send(std::string_view bytes);
  // All up to and including `text`. A failure of the test when it doesn't come.
  std::string ReadUntil(std::string_view text);
  // Exactly `size` bytes.
  std::string Read(size_t size);
  // All that comes until the other end closes.
  std::string ReadToEnd();

  [[nodiscard]] int fd() const { return socket_.get(); }
  UniqueFd Take() { return std::move(socket_); }
  void Close() { socket_.Reset(); }

 private:
  explicit SerialClient(UniqueFd socket) : socket_(std::move(socket)) {}
  // Appends what comes next to received_; false at the end or when patience has.
  bool Receive(std::chrono::steady_clock::time_point deadline);

  UniqueFd socket_;
  std::string received_;
};

}  // namespace bothy::integration
