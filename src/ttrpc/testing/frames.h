// Frames as bytes, made by hand: what peers of the tests send and see.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "support/unique_fd.h"
#include "ttrpc/envelope.h"
#include "ttrpc/frame.h"

namespace bothy::testing {

inline std::string Frame(ttrpc::FrameHeader header, const std::string& data) {
  header.length = static_cast<uint32_t>(data.size());
  std::string bytes(ttrpc::kFrameHeaderSize, '\0');
  ttrpc::EncodeFrameHeader(header, reinterpret_cast<uint8_t*>(bytes.data()));
  return bytes + data;
}

struct RequestOptions {
  std::string service = "bothy.testing.Echo";
  int64_t timeout_nano = 0;
  ttrpc::Metadata metadata = {};
  uint8_t flags = 0;
};

inline std::string RequestFrame(uint32_t stream_id, const std::string& method,
                                const std::string& payload, const RequestOptions& options = {}) {
  const ttrpc::RequestHead head{.service = options.service,
                                .method = method,
                                .timeout_nano = options.timeout_nano,
                                .metadata = &options.metadata};
  std::string data(ttrpc::SizeOfRequest(head, payload.size()), '\0');
  std::copy(payload.begin(), payload.end(),
            ttrpc::EncodeRequest(head, payload.size(), reinterpret_cast<uint8_t*>(data.data())));
  return Frame({.stream_id = stream_id, .type = ttrpc::kFrameRequest, .flags = options.flags},
               data);
}

inline std::string ResponseFrame(uint32_t stream_id, const std::string& payload) {
  std::string data(ttrpc::SizeOfResponse(payload.size()), '\0');
  std::copy(payload.begin(), payload.end(),
            ttrpc::EncodeResponse(payload.size(), reinterpret_cast<uint8_t*>(data.data())));
  return Frame({.stream_id = stream_id, .type = ttrpc::kFrameResponse}, data);
}

inline std::string ErrorFrame(uint32_t stream_id, const absl::Status& status) {
  return Frame({.stream_id = stream_id, .type = ttrpc::kFrameResponse},
               ttrpc::EncodeErrorResponse(status));
}

// Two ends of a connection.
inline std::pair<UniqueFd, UniqueFd> SocketPair() {
  int fds[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// A peer that speaks in frames and bytes, over a blocking socket.
class RawPeer {
 public:
  struct Received {
    ttrpc::FrameHeader header;
    std::string data;
  };

  explicit RawPeer(UniqueFd socket) : socket_(std::move(socket)) {}

  [[nodiscard]] int fd() const { return socket_.get(); }

  // False when the other end is gone.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  // The next frame; none at the end of the connection.
  std::optional<Received> Receive() {
    ttrpc::FrameDecoder::Frame frame;
    while (true) {
      std::string_view input = unread_;
      const auto event = decoder_.Next(&input, &frame);
      if (event == ttrpc::FrameDecoder::Event::kFrame) {
        Received received{.header = frame.header, .data = std::string(frame.data)};
        unread_.erase(0, unread_.size() - input.size());
        return received;
      }
      EXPECT_EQ(event, ttrpc::FrameDecoder::Event::kNeedMore);
      unread_.resize(64 << 10);
      const ssize_t size = ::recv(socket_.get(), unread_.data(), unread_.size(), 0);
      unread_.resize(size > 0 ? static_cast<size_t>(size) : 0);
      if (size <= 0) return std::nullopt;
    }
  }

  // The status in the next frame, a response; Unavailable at the end of the connection.
  absl::Status ReceiveStatus(uint32_t* stream_id = nullptr) {
    const auto received = Receive();
    if (!received) return absl::UnavailableError("end of the connection");
    EXPECT_EQ(received->header.type, ttrpc::kFrameResponse);
    if (stream_id != nullptr) *stream_id = received->header.stream_id;
    ttrpc::ResponseView response;
    EXPECT_TRUE(ttrpc::DecodeResponse(received->data, &response).ok());
    return response.status;
  }

  // Sends no more; still reads.
  void CloseWriting() { ::shutdown(socket_.get(), SHUT_WR); }
  void Close() { socket_.Reset(); }

 private:
  UniqueFd socket_;
  ttrpc::FrameDecoder decoder_;
  std::string unread_;
};

}  // namespace bothy::testing
