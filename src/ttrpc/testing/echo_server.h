// EchoServer: the test service, on our server.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "echo.ttrpc.h"

namespace bothy::testing {

class EchoServer : public EchoService {
 public:
  void Echo(std::shared_ptr<ttrpc::ServerCall> call, EchoRequest request,
            ttrpc::Reply<EchoResponse> reply) override {
    last_call_ = call;
    EchoResponse response;
    *response.mutable_payload() = std::move(*request.mutable_payload());
    *response.mutable_text() = std::move(*request.mutable_text());
    ttrpc::Metadata metadata = call->metadata();
    std::stable_sort(metadata.begin(), metadata.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (auto& [key, value] : metadata) {
      Pair* const pair = response.add_metadata();
      pair->set_key(std::move(key));
      pair->set_value(std::move(value));
    }
    response.set_waiting(static_cast<uint32_t>(waiting_.size()));
    if (call->deadline()) {
      const auto left = *call->deadline() - std::chrono::steady_clock::now();
      response.set_timeout_nano(std::chrono::nanoseconds(left).count());
    }
    reply(response);
  }

  void Fail(std::shared_ptr<ttrpc::ServerCall>, FailRequest request,
            ttrpc::Reply<google::protobuf::Empty> reply) override {
    reply(absl::Status(static_cast<absl::StatusCode>(request.code()), request.message()));
  }

  void Wait(std::shared_ptr<ttrpc::ServerCall> call, google::protobuf::Empty,
            ttrpc::Reply<EchoResponse> reply) override {
    last_call_ = call;
    call->OnCancel([this] { ++cancelled_; });
    waiting_.push_back(std::move(reply));
  }

  void Release(std::shared_ptr<ttrpc::ServerCall>, google::protobuf::Empty,
               ttrpc::Reply<ReleaseResponse> reply) override {
    auto waiting = std::exchange(waiting_, {});
    ReleaseResponse response;
    response.set_released(static_cast<int32_t>(waiting.size()));
    for (auto it = waiting.rbegin(); it != waiting.rend(); ++it) (*it)(EchoResponse());
    reply(response);
  }

  void Fill(std::shared_ptr<ttrpc::ServerCall>, FillRequest request,
            ttrpc::Reply<EchoResponse> reply) override {
    EchoResponse response;
    response.mutable_payload()->assign(request.size(), 'x');
    reply(response);
  }

  // The Reply of the call of Wait that has waited longest.
  [[nodiscard]] ttrpc::Reply<EchoResponse> TakeWaiting() {
    auto reply = std::move(waiting_.front());
    waiting_.erase(waiting_.begin());
    return reply;
  }
  // The last call of Echo or Wait.
  [[nodiscard]] std::shared_ptr<ttrpc::ServerCall> last_call() const { return last_call_; }
  // Calls of Wait that were cancelled, and those not answered yet. Loop thread only.
  [[nodiscard]] int cancelled() const { return cancelled_; }
  [[nodiscard]] size_t waiting() const { return waiting_.size(); }

 private:
  int cancelled_ = 0;
  std::shared_ptr<ttrpc::ServerCall> last_call_;
  std::vector<ttrpc::Reply<EchoResponse>> waiting_;
};

}  // namespace bothy::testing
