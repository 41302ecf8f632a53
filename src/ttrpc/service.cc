#include "ttrpc/service.h"

#include <string>
#include <utility>

#include "ttrpc/loop_gate.h"
#include "ttrpc/server_session.h"

namespace bothy::ttrpc {

void ServerCall::OnCancel(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (!over_) {
      on_cancel_.push_back(std::move(callback));
      return;
    }
  }
  if (cancelled()) origin_.gate->Post(std::move(callback));
}

void ServerCall::Answer(const google::protobuf::MessageLite& message) {
  if (ServerSession::Dispatching() == dispatcher_) {
    if (session_ != nullptr) session_->Finish(*this, message);
    return;
  }
  Deliver(ServerSession::EncodeResponseFrame(origin_.stream_id, message, origin_.max_message));
}

void ServerCall::AnswerError(const absl::Status& status) {
  Deliver(ServerSession::EncodeErrorFrame(origin_.stream_id, status));
}

void ServerCall::Deliver(std::string response) {
  if (ServerSession::Dispatching() == dispatcher_) {
    if (session_ != nullptr) session_->Finish(*this, response);
    return;
  }
  origin_.gate->Run([call = shared_from_this(), response = std::move(response)] {
    if (call->session_ != nullptr) call->session_->Finish(*call, response);
  });
}

void ServerCall::SetAnswered() {
  session_ = nullptr;
  trace_.End();
  std::vector<std::function<void()>> dropped;  // destroyed outside the lock
  const std::lock_guard lock(mutex_);
  over_ = true;
  dropped.swap(on_cancel_);
}

void ServerCall::SetCancelled() {
  session_ = nullptr;
  trace_.End("cancelled");
  std::vector<std::function<void()>> callbacks;
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
    cancelled_.store(true, std::memory_order_release);
    callbacks.swap(on_cancel_);
  }
  for (auto& callback : callbacks) callback();
}

}  // namespace bothy::ttrpc
