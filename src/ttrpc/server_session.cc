#include "ttrpc/server_session.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "support/status.h"
#include "ttrpc/envelope.h"

namespace bothy::ttrpc {
namespace {

thread_local const ServerSession* t_dispatching = nullptr;

// Says, for its lifetime, that `session` may be written to by whoever is below it on the stack.
class DispatchScope {
 public:
  explicit DispatchScope(const ServerSession* session) : outer_(t_dispatching) {
    t_dispatching = session;
  }
  ~DispatchScope() { t_dispatching = outer_; }
  DispatchScope(const DispatchScope&) = delete;
  DispatchScope& operator=(const DispatchScope&) = delete;

 private:
  const ServerSession* const outer_;
};

constexpr uint32_t kIdWindow = 64;

// How many odd ids `id` is after `from`; ids wrap around.
int32_t IdsAfter(uint32_t id, uint32_t from) { return static_cast<int32_t>(id - from) / 2; }

absl::Status OverLimit(uint64_t size, uint32_t limit) {
  return absl::ResourceExhaustedError(
      absl::StrCat("message length ", size, " exceeds the maximum of ", limit));
}

std::optional<ServerCall::TimePoint> DeadlineOf(int64_t timeout_nano, ServerCall::TimePoint now) {
  using Duration = ServerCall::TimePoint::duration;
  if (timeout_nano == 0) return std::nullopt;
  const std::chrono::nanoseconds timeout(timeout_nano);
  if (timeout > ServerCall::TimePoint::max() - now) return std::nullopt;  // centuries
  return now + std::chrono::duration_cast<Duration>(timeout);
}

}  // namespace

const ServerSession* ServerSession::Dispatching() { return t_dispatching; }

absl::Status ServerSession::Receive(std::string_view bytes) { return Process(bytes); }

absl::Status ServerSession::Resume() {
  const std::string input = std::exchange(held_, {});
  return Process(input);
}

absl::Status ServerSession::Process(std::string_view bytes) {
  const DispatchScope scope(this);
  while (!closed_) {
    if (output_.size() > options_.max_write_backlog_bytes) {
      held_.assign(bytes);
      break;
    }
    FrameDecoder::Frame frame;
    switch (decoder_.Next(&bytes, &frame)) {
      case FrameDecoder::Event::kNeedMore:
        return absl::OkStatus();
      case FrameDecoder::Event::kFrame:
        RETURN_IF_ERROR(HandleFrame(frame));
        break;
      case FrameDecoder::Event::kOverlong:
        // A client that really has so much to say is told so. Anything else that announces more
        // than 4 MiB isn't ttrpc.
        if (frame.header.type != kFrameRequest) {
          return absl::InvalidArgumentError("not ttrpc, or out of step");
        }
        AnswerError(frame.header.stream_id, OverLimit(frame.header.length, options_.max_message));
        if (frame.header.stream_id % 2 == 1) UseStreamId(frame.header.stream_id);
        break;
    }
  }
  return absl::OkStatus();
}

absl::Status ServerSession::HandleFrame(const FrameDecoder::Frame& frame) {
  switch (frame.header.type) {
    case kFrameRequest:
      if (!options_.refusal.ok()) {
        AnswerError(frame.header.stream_id, options_.refusal);
        return options_.refusal;
      }
      HandleRequest(frame);
      break;
    case kFrameData:
      HandleData(frame.header);
      break;
    default:
      break;
  }
  return absl::OkStatus();
}

void ServerSession::HandleRequest(const FrameDecoder::Frame& frame) {
  const uint32_t id = frame.header.stream_id;
  if (id % 2 == 0) {
    AnswerError(id, absl::InvalidArgumentError(
                        absl::StrCat("stream id ", id, ": a client's ids must be odd")));
    return;
  }
  if (!UseStreamId(id)) {
    AnswerError(id, absl::InvalidArgumentError(
                        absl::StrCat("stream id ", id, " can't be used a second time")));
    return;
  }
  RequestView request;
  if (const absl::Status status = DecodeRequest(frame.data, &request); !status.ok()) {
    AnswerError(id, status);
    return;
  }
  const auto service = options_.services->find(request.service);
  if (service == options_.services->end()) {
    AnswerError(id,
                absl::UnimplementedError(absl::StrCat("service ", std::string(request.service))));
    return;
  }
  const auto methods = service->second->Methods();
  const auto method = std::find_if(methods.begin(), methods.end(), [&](const Service::Method& m) {
    return m.name == request.method;
  });
  if (method == methods.end()) {
    AnswerError(id, absl::UnimplementedError(absl::StrCat("method ", std::string(request.method))));
    return;
  }
  if ((frame.header.flags & kFlagRemoteOpen) != 0) {
    AnswerError(id, absl::UnimplementedError(absl::StrCat("method ", std::string(request.method),
                                                          " takes one message, no stream")));
    return;
  }
  if (calls_.size() >= options_.max_calls_in_flight) {
    AnswerError(id, absl::ResourceExhaustedError(absl::StrCat(
                        "more than ", options_.max_calls_in_flight, " calls in flight")));
    return;
  }

  ServerCall::Origin origin{.session = this,
                            .gate = options_.gate,
                            .peer = options_.peer,
                            .stream_id = id,
                            .max_message = options_.max_message,
                            .deadline = std::nullopt,
                            .metadata = {}};
  if (request.timeout_nano != 0) {
    if (request.timeout_nano < 0) {
      AnswerError(id, absl::DeadlineExceededError("the deadline passed before the call arrived"));
      return;
    }
    origin.deadline = DeadlineOf(request.timeout_nano, options_.now());
  }
  origin.metadata.reserve(request.metadata.size());
  for (const auto& [key, value] : request.metadata) origin.metadata.emplace_back(key, value);

  const auto call = std::make_shared<ServerCall>(std::move(origin));
  if (Tracing()) call->trace_ = TraceOperation("call", request.method);
  method->handle(*service->second, call, request.payload);
  // Most calls are answered by now and never enter the table.
  if (call->session_ == nullptr) return;
  if (closed_) {
    call->SetCancelled();
    return;
  }
  calls_.emplace(id, call);
  if (call->deadline().has_value()) deadlines_.emplace(*call->deadline(), id);
}

void ServerSession::HandleData(const FrameHeader& header) {
  const uint32_t id = header.stream_id;
  if (id % 2 == 0 || !WasUsed(id)) {
    AnswerError(id, absl::InvalidArgumentError(absl::StrCat("stream ", id, " isn't open")));
    return;
  }
  const auto found = calls_.find(id);
  if (found == calls_.end()) return;
  // A frame that only closes the client's half says what is known of a unary call anyway.
  if ((header.flags & kFlagNoData) != 0 && header.length == 0) return;
  const std::shared_ptr<ServerCall> call = found->second;
  Forget(*call);
  AnswerError(id, absl::InvalidArgumentError("data sent on a unary call"));
  call->SetCancelled();
}

bool ServerSession::WasUsed(uint32_t stream_id) const {
  if (!any_id_used_) return false;
  const int32_t after = IdsAfter(stream_id, newest_id_);
  if (after > 0) return false;
  const auto before = static_cast<uint32_t>(-after);
  return before >= kIdWindow || (used_ids_ >> before & 1) != 0;
}

bool ServerSession::UseStreamId(uint32_t stream_id) {
  if (!any_id_used_) {
    any_id_used_ = true;
    newest_id_ = stream_id;
    used_ids_ = 1;
    return true;
  }
  if (WasUsed(stream_id)) return false;
  const int32_t after = IdsAfter(stream_id, newest_id_);
  if (after > 0) {
    used_ids_ = static_cast<uint32_t>(after) >= kIdWindow ? 0 : used_ids_ << after;
    used_ids_ |= 1;
    newest_id_ = stream_id;
  } else {
    used_ids_ |= uint64_t{1} << -after;
  }
  return true;
}

void ServerSession::AnswerError(uint32_t stream_id, const absl::Status& status) {
  output_.Append(EncodeErrorFrame(stream_id, status));
}

void ServerSession::Forget(const ServerCall& call) {
  const uint32_t id = call.origin_.stream_id;
  // A call that is answered inside its method isn't in the table.
  if (calls_.erase(id) > 0 && call.deadline().has_value()) {
    deadlines_.erase({*call.deadline(), id});
  }
}

void ServerSession::Finish(ServerCall& call, const google::protobuf::MessageLite& message) {
  Forget(call);
  const size_t payload_size = message.ByteSizeLong();
  const size_t size = SizeOfResponse(payload_size);
  const uint32_t id = call.origin_.stream_id;
  if (size > options_.max_message) {
    AnswerError(id, OverLimit(size, options_.max_message));
  } else {
    uint8_t* to = output_.Grow(kFrameHeaderSize + size);
    EncodeFrameHeader(
        {.length = static_cast<uint32_t>(size), .stream_id = id, .type = kFrameResponse}, to);
    to = EncodeResponse(payload_size, to + kFrameHeaderSize);
    message.SerializeWithCachedSizesToArray(to);
  }
  call.SetAnswered();
  NotifyOutput();
}

void ServerSession::Finish(ServerCall& call, std::string_view response_frame) {
  Forget(call);
  output_.Append(response_frame);
  call.SetAnswered();
  NotifyOutput();
}

void ServerSession::NotifyOutput() {
  if (t_dispatching != this && options_.output_ready) options_.output_ready();
}

std::string ServerSession::EncodeResponseFrame(uint32_t stream_id,
                                               const google::protobuf::MessageLite& message,
                                               uint32_t max_message) {
  const size_t payload_size = message.ByteSizeLong();
  const size_t size = SizeOfResponse(payload_size);
  if (size > max_message) return EncodeErrorFrame(stream_id, OverLimit(size, max_message));
  std::string frame(kFrameHeaderSize + size, '\0');
  auto* to = reinterpret_cast<uint8_t*>(frame.data());
  EncodeFrameHeader(
      {.length = static_cast<uint32_t>(size), .stream_id = stream_id, .type = kFrameResponse}, to);
  to = EncodeResponse(payload_size, to + kFrameHeaderSize);
  message.SerializeWithCachedSizesToArray(to);
  return frame;
}

std::string ServerSession::EncodeErrorFrame(uint32_t stream_id, const absl::Status& status) {
  const std::string response = EncodeErrorResponse(status);
  std::string frame(kFrameHeaderSize, '\0');
  EncodeFrameHeader({.length = static_cast<uint32_t>(response.size()),
                     .stream_id = stream_id,
                     .type = kFrameResponse},
                    reinterpret_cast<uint8_t*>(frame.data()));
  return frame + response;
}

std::optional<ServerSession::TimePoint> ServerSession::NextDeadline() const {
  if (deadlines_.empty()) return std::nullopt;
  return deadlines_.begin()->first;
}

void ServerSession::ExpireDeadlines() {
  const TimePoint now = options_.now();
  std::vector<std::shared_ptr<ServerCall>> expired;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const uint32_t id = deadlines_.begin()->second;
    expired.push_back(calls_.at(id));
    calls_.erase(id);
    deadlines_.erase(deadlines_.begin());
    AnswerError(id, absl::DeadlineExceededError("the deadline passed"));
  }
  if (expired.empty()) return;
  NotifyOutput();
  for (const auto& call : expired) call->SetCancelled();
}

void ServerSession::Close() {
  if (closed_) return;
  closed_ = true;
  held_.clear();
  deadlines_.clear();
  // Callbacks may come back to this session; it holds nothing by then.
  const auto calls = std::exchange(calls_, {});
  for (const auto& [id, call] : calls) call->session_ = nullptr;
  for (const auto& [id, call] : calls) call->SetCancelled();
}

}  // namespace bothy::ttrpc
