// What a test sends to an endpoint, byte for byte, and what comes back.
#pragma once

#include <sys/socket.h>

#include <string>
#include <string_view>
#include <utility>

#include "support/check.h"
#include "support/unique_fd.h"
#include "support/unix_socket.h"

namespace bothy::metrics {

class HttpClient {
 public:
  // Connects to a Unix socket.
  explicit HttpClient(const std::string& path) {
    absl::StatusOr<UniqueFd> connected = ConnectUnix(path, ConnectMode::kBlocking);
    CHECK_OK(connected);
    socket_ = *std::move(connected);
  }

  // False when the server has gone.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  // All that comes until the server closes.
  std::string ReadAll() {
    while (ReadSome()) {
    }
    return std::exchange(received_, {});
  }
  // One answer with a Content-Length; the rest stays for the next. Empty: the server has closed.
  std::string ReadAnswer() {
    constexpr std::string_view kLength = "Content-Length: ";
    size_t head = 0;
    while ((head = received_.find("\r\n\r\n")) == std::string::npos) {
      if (!ReadSome()) return {};
    }
    const size_t length = received_.find(kLength);
    CHECK(length < head);
    const size_t size = head + 4 + std::stoul(received_.substr(length + kLength.size()));
    while (received_.size() < size) {
      if (!ReadSome()) return {};
    }
    std::string answer = received_.substr(0, size);
    received_.erase(0, size);
    return answer;
  }

 private:
  bool ReadSome() {
    char buffer[4096];
    const ssize_t size = ::recv(socket_.get(), buffer, sizeof buffer, 0);
    if (size <= 0) return false;
    received_.append(buffer, static_cast<size_t>(size));
    return true;
  }

  UniqueFd socket_;
  std::string received_;
};

// The body of one GET /metrics.
inline std::string Scrape(const std::string& socket_path) {
  HttpClient client(socket_path);
  CHECK(client.Send("GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
  const std::string answer = client.ReadAll();
  CHECK(answer.starts_with("HTTP/1.1 200 OK\r\n"));
  return answer.substr(answer.find("\r\n\r\n") + 4);
}

}  // namespace bothy::metrics
