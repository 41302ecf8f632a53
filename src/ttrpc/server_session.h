// ServerSession: the server's side of one connection, without the socket.
//
// Bytes that arrived go in, frames come out of output(); in between it decodes requests, calls
// services, keeps track of calls in flight, their deadlines and their cancellation. What a peer
// sends is hostile: the worst it can reach is an error from Receive, upon which the caller closes
// this one connection.
//
// What is answered to what (containerd/ttrpc 1.1 and 1.2 servers, PROTOCOL.md):
//   even stream id, id in use or used before     InvalidArgument on that id
//   message over the limit                       ResourceExhausted on that id, message skipped
//   undecodable Request                          InvalidArgument
//   unknown service or method, opening a stream  Unimplemented
//   data frame on a stream never opened          InvalidArgument
//   data frame on a unary call                   InvalidArgument, the call is cancelled
//   data frame on a finished stream              nothing (the client couldn't know)
//   response frame, unknown frame type           nothing (reserved)
//   over-long frame of any type but request      garbage: the connection is closed
//
// Loop thread only.
#pragma once

#include <google/protobuf/message_lite.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "ttrpc/byte_queue.h"
#include "ttrpc/frame.h"
#include "ttrpc/loop_gate.h"
#include "ttrpc/service.h"

namespace bothy::ttrpc {

// Services by full name. They outlive every session.
using ServiceTable = std::map<std::string, Service*, std::less<>>;

class ServerSession {
 public:
  using TimePoint = ServerCall::TimePoint;

  struct Options {
    const ServiceTable* services = nullptr;
    std::shared_ptr<LoopGate> gate = nullptr;
    PeerCredentials peer = {};
    // Not OK: nothing is called; the first request gets this answer and ends the session.
    absl::Status refusal = {};
    uint32_t max_message = kMaxMessage;
    size_t max_calls_in_flight = 4096;
    size_t max_write_backlog_bytes = 1 << 20;
    // Called when output() got something other than during Receive or Resume.
    std::function<void()> output_ready = {};
    std::function<TimePoint()> now = [] { return std::chrono::steady_clock::now(); };
  };

  explicit ServerSession(Options options) : options_(std::move(options)) {}
  // Close()s.
  ~ServerSession() { Close(); }
  ServerSession(const ServerSession&) = delete;
  ServerSession& operator=(const ServerSession&) = delete;

  // Takes bytes that arrived; only while WantsInput(). An error: the connection is to be closed
  // after what output() holds.
  [[nodiscard]] absl::Status Receive(std::string_view bytes);
  // Goes on with input that was held back; called when output() was drained.
  [[nodiscard]] absl::Status Resume();
  // False while the client doesn't read its answers: nothing more is read from it until Resume.
  [[nodiscard]] bool WantsInput() const {
    return !closed_ && held_.empty() && output_.size() <= options_.max_write_backlog_bytes;
  }
  // Whether Resume has something to do.
  [[nodiscard]] bool CanResume() const {
    return !closed_ && !held_.empty() && output_.size() <= options_.max_write_backlog_bytes / 2;
  }

  // Frames to send; the caller consumes what it has sent.
  [[nodiscard]] ByteQueue& output() { return output_; }

  // When ExpireDeadlines has something to do next.
  [[nodiscard]] std::optional<TimePoint> NextDeadline() const;
  // Answers DeadlineExceeded to calls whose time is over, and cancels them.
  void ExpireDeadlines();

  // Cancels every call in flight; their answers will be dropped. Idempotent.
  void Close();

  [[nodiscard]] size_t calls_in_flight() const { return calls_.size(); }

  // The session whose Receive or Resume is running on this thread; null: none.
  [[nodiscard]] static const ServerSession* Dispatching();

  // For ServerCall.
  void Finish(ServerCall& call, const google::protobuf::MessageLite& message);
  void Finish(ServerCall& call, std::string_view response_frame);
  // Whole frames. A message over `max_message` becomes ResourceExhausted.
  [[nodiscard]] static std::string EncodeResponseFrame(uint32_t stream_id,
                                                       const google::protobuf::MessageLite& message,
                                                       uint32_t max_message);
  [[nodiscard]] static std::string EncodeErrorFrame(uint32_t stream_id, const absl::Status& status);

 private:
  absl::Status Process(std::string_view bytes);
  absl::Status HandleFrame(const FrameDecoder::Frame& frame);
  void HandleRequest(const FrameDecoder::Frame& frame);
  void HandleData(const FrameHeader& header);
  // Marks the id as used; false when it has been before.
  bool UseStreamId(uint32_t stream_id);
  bool WasUsed(uint32_t stream_id) const;
  void AnswerError(uint32_t stream_id, const absl::Status& status);
  void Forget(const ServerCall& call);
  void NotifyOutput();

  const Options options_;
  FrameDecoder decoder_{options_.max_message};
  ByteQueue output_;
  std::string held_;  // input not processed yet because the client doesn't read its answers
  bool closed_ = false;

  // Stream ids: the newest, and a bit for each of the 64 odd ids up to it. Older ones count as
  // used: clients may number and send on different threads, but not that far apart.
  bool any_id_used_ = false;
  uint32_t newest_id_ = 0;
  uint64_t used_ids_ = 0;

  std::unordered_map<uint32_t, std::shared_ptr<ServerCall>> calls_;
  std::set<std::pair<TimePoint, uint32_t>> deadlines_;  // of calls_
};

}  // namespace bothy::ttrpc
