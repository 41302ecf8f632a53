// A peer that sends anything, cut anywhere, to a server whose calls are answered, dropped, left
// waiting and run into their deadlines: the session keeps its bounds and says only whole responses.
//
// Input: steps. A byte below 0xf0 feeds that many of the bytes that follow it; the others do what
// Step says.
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "support/check.h"
#include "support/event_loop.h"
#include "ttrpc/envelope.h"
#include "ttrpc/frame.h"
#include "ttrpc/server_session.h"
#include "ttrpc/testing/echo_server.h"

namespace {

using bothy::testing::EchoResponse;
using bothy::testing::EchoServer;
using bothy::ttrpc::FrameDecoder;
using bothy::ttrpc::LoopGate;
using bothy::ttrpc::ServerSession;

constexpr size_t kMaxCalls = 8;
constexpr size_t kMaxBacklog = 4096;
constexpr uint32_t kMaxMessage = 1 << 16;

enum Step : uint8_t { kAnswer = 0xf0, kDrop, kPassTime, kRead, kReadSome, kClose };

class Driver {
 public:
  Driver() : gate_(std::make_shared<LoopGate>(loop_)) {
    services_.emplace("bothy.testing.Echo", &service_);
    session_ = std::make_unique<ServerSession>(ServerSession::Options{
        .services = &services_,
        .gate = gate_,
        .max_message = kMaxMessage,
        .max_calls_in_flight = kMaxCalls,
        .max_write_backlog_bytes = kMaxBacklog,
        .now = [this] { return now_; },
    });
  }
  ~Driver() {
    session_.reset();
    gate_->Close();
  }

  // False when the session is over.
  bool Feed(std::string_view bytes) {
    if (!session_->WantsInput()) return true;
    const bool good = session_->Receive(bytes).ok();
    CheckBounds();
    return good;
  }

  bool Do(uint8_t step) {
    switch (step) {
      case kAnswer:
        if (service_.waiting() > 0) service_.TakeWaiting()(EchoResponse());
        break;
      case kDrop:
        if (service_.waiting() > 0) static_cast<void>(service_.TakeWaiting());
        break;
      case kPassTime:
        now_ += std::chrono::seconds(1);
        session_->ExpireDeadlines();
        break;
      case kRead:
        Read(session_->output().size());
        break;
      case kReadSome:
        Read(std::min<size_t>(session_->output().size(), 7));
        break;
      case kClose:
        session_->Close();
        CHECK(session_->calls_in_flight() == 0);
        return false;
      default:
        break;
    }
    loop_.context().restart();
    loop_.context().poll();
    bool good = true;
    while (good && session_->CanResume()) {
      good = session_->Resume().ok();
      if (session_->CanResume()) Read(session_->output().size());
    }
    CheckBounds();
    return good;
  }

  // What is left to be said is said in whole frames.
  void Finish() {
    Read(session_->output().size());
    CHECK(client_.AtFrameBoundary());
  }

 private:
  void Read(size_t size) {
    std::string_view input(reinterpret_cast<const char*>(session_->output().data()), size);
    FrameDecoder::Frame frame;
    FrameDecoder::Event event;
    while ((event = client_.Next(&input, &frame)) != FrameDecoder::Event::kNeedMore) {
      CHECK(event == FrameDecoder::Event::kFrame);
      CHECK(frame.header.type == bothy::ttrpc::kFrameResponse);
      bothy::ttrpc::ResponseView response;
      CHECK_OK(DecodeResponse(frame.data, &response));
    }
    session_->output().Consume(size);
  }

  void CheckBounds() {
    CHECK(session_->calls_in_flight() <= kMaxCalls);
    // One more answer than the backlog allows, and those of the calls that were in flight.
    CHECK(session_->output().size() <= kMaxBacklog + (kMaxCalls + 1) * (2 * kMaxMessage));
    CHECK(session_->NextDeadline().has_value() <= (session_->calls_in_flight() > 0));
  }

  bothy::EventLoop loop_;
  std::shared_ptr<LoopGate> gate_;
  EchoServer service_;
  bothy::ttrpc::ServiceTable services_;
  ServerSession::TimePoint now_{std::chrono::seconds(1)};
  FrameDecoder client_;
  std::unique_ptr<ServerSession> session_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static google::protobuf::LogSilencer* const silencer = new google::protobuf::LogSilencer;
  static_cast<void>(silencer);
  Driver driver;
  std::string_view input(reinterpret_cast<const char*>(bytes), size);
  while (!input.empty()) {
    const auto step = static_cast<uint8_t>(input[0]);
    input.remove_prefix(1);
    bool good;
    if (step < 0xf0) {
      const std::string_view fed = input.substr(0, step);
      input.remove_prefix(fed.size());
      good = driver.Feed(fed);
    } else {
      good = driver.Do(step);
    }
    if (!good) break;
  }
  driver.Finish();
  return 0;
}
