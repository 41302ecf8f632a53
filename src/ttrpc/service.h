// What a ttrpc service is made of on the server's side: Service, ServerCall, Reply.
//
// protoc-gen-ttrpc-cpp generates a subclass of Service for each service of a .proto, with one
// virtual method a call:
//
//   class EchoServer : public test::EchoService {
//     void Echo(std::shared_ptr<ttrpc::ServerCall> call, EchoRequest request,
//               ttrpc::Reply<EchoResponse> reply) override {
//       if (request.text().empty()) return reply(absl::InvalidArgumentError("text: is empty"));
//       EchoResponse response;
//       response.set_text(request.text());
//       reply(response);
//     }
//   };
//
// A method runs on the server's loop thread and must not block. It answers before it returns, or it
// keeps the Reply and answers later, from any thread.
#pragma once

#include <google/protobuf/message_lite.h>
#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "support/check.h"
#include "support/trace.h"
#include "ttrpc/envelope.h"

namespace bothy::ttrpc {

class LoopGate;
class ServerSession;

// Who is at the other end, as the kernel saw it at connect(2) (SO_PEERCRED).
struct PeerCredentials {
  uid_t uid = 0;
  gid_t gid = 0;
  pid_t pid = 0;
};

// One call in flight: who made it, until when it's worth answering, whether it still is. Shared by
// the method, by whatever works on the call after it, and by the server.
class ServerCall : public std::enable_shared_from_this<ServerCall> {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // Made by the server only.
  struct Origin {
    ServerSession* session;
    std::shared_ptr<LoopGate> gate;
    PeerCredentials peer;
    uint32_t stream_id;
    uint32_t max_message;
    std::optional<TimePoint> deadline;
    Metadata metadata;
  };
  explicit ServerCall(Origin origin)
      : origin_(std::move(origin)), dispatcher_(origin_.session), session_(origin_.session) {}
  ServerCall(const ServerCall&) = delete;
  ServerCall& operator=(const ServerCall&) = delete;

  [[nodiscard]] const PeerCredentials& peer() const { return origin_.peer; }
  // When the client stops waiting. The server itself answers DeadlineExceeded then.
  [[nodiscard]] std::optional<TimePoint> deadline() const { return origin_.deadline; }
  [[nodiscard]] const Metadata& metadata() const { return origin_.metadata; }

  // True once nobody waits for the answer any more: the client went away, or the deadline passed.
  // Never becomes true after the answer. Any thread.
  [[nodiscard]] bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }
  // Runs `callback` once, on the loop thread, when cancelled() becomes true; soon, if it is
  // already. Destroyed without a run when the call is answered. Any thread.
  void OnCancel(std::function<void()> callback);

 private:
  friend class ServerSession;
  template <typename T>
  friend class Reply;

  // The answer, once. Any thread.
  void Answer(const google::protobuf::MessageLite& message);
  void AnswerError(const absl::Status& status);

  void Deliver(std::string response);
  // Loop thread only: the call is over, with an answer or without.
  void SetAnswered();
  void SetCancelled();

  const Origin origin_;
  // Tells an answer from inside the method, which may write to the session directly, from a later
  // one. Compared, never followed.
  const ServerSession* const dispatcher_;
  ServerSession* session_;  // loop thread only; null when the call is over
  TraceOperation trace_;    // loop thread only
  std::atomic<bool> cancelled_ = false;
  std::mutex mutex_;
  bool over_ = false;                             // guarded by mutex_
  std::vector<std::function<void()>> on_cancel_;  // guarded by mutex_
};

// The right and the duty to answer one call. Dropping it unanswered answers Internal. An answer to
// a client that went away, or after the deadline, is dropped quietly.
// Move-only; the object itself isn't thread-safe, but may be used up on any thread.
template <typename T>
class Reply {
 public:
  explicit Reply(std::shared_ptr<ServerCall> call) : call_(std::move(call)) {}
  Reply(Reply&&) noexcept = default;
  Reply& operator=(Reply&& other) noexcept {
    if (this != &other) {
      Drop();
      call_ = std::move(other.call_);
    }
    return *this;
  }
  ~Reply() { Drop(); }

  // Exactly once.
  void operator()(const T& message) { Take()->Answer(message); }
  void operator()(const absl::Status& status) {
    // OK without a message isn't an answer; it's a bug that the client shall hear of.
    Take()->AnswerError(status.ok() ? absl::InternalError("answered OK without a message")
                                    : status);
  }
  void operator()(const absl::StatusOr<T>& result) {
    if (result.ok()) {
      (*this)(*result);
    } else {
      (*this)(result.status());
    }
  }

  // Whether it is still to be answered (false: moved from, or used up).
  explicit operator bool() const { return call_ != nullptr; }

 private:
  std::shared_ptr<ServerCall> Take() {
    CHECK(call_ != nullptr);
    return std::move(call_);
  }
  void Drop() {
    if (call_ != nullptr) Take()->AnswerError(absl::InternalError("the call was never answered"));
  }

  std::shared_ptr<ServerCall> call_;
};

// Base of the generated service classes.
class Service {
 public:
  struct Method {
    std::string_view name;
    void (*handle)(Service& service, std::shared_ptr<ServerCall> call, std::string_view payload);
  };

  virtual ~Service() = default;
  // package.Service, as requests name it.
  [[nodiscard]] virtual std::string_view FullName() const = 0;
  [[nodiscard]] virtual std::span<const Method> Methods() const = 0;
};

// For generated code: parses `payload` and calls `method`; InvalidArgument to the client when it
// can't be parsed. Unknown fields are kept in the message.
template <typename ServiceType, typename Request, typename Response>
void Dispatch(ServiceType& service,
              void (ServiceType::*method)(std::shared_ptr<ServerCall>, Request, Reply<Response>),
              std::shared_ptr<ServerCall> call, std::string_view payload) {
  Reply<Response> reply(call);
  Request request;
  if (!request.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) {
    reply(absl::InvalidArgumentError("the payload can't be decoded as " + request.GetTypeName()));
    return;
  }
  (service.*method)(std::move(call), std::move(request), std::move(reply));
}

}  // namespace bothy::ttrpc
