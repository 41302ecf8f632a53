#include "ttrpc/server_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/event_loop.h"
#include "ttrpc/envelope.h"
#include "ttrpc/testing/echo_server.h"
#include "ttrpc/testing/frames.h"

namespace bothy::ttrpc {
namespace {

using bothy::testing::EchoRequest;
using bothy::testing::EchoResponse;
using bothy::testing::EchoServer;
using bothy::testing::FailRequest;
using bothy::testing::FillRequest;
using bothy::testing::Frame;
using bothy::testing::RequestFrame;
using bothy::testing::RequestOptions;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::string EchoPayload(const std::string& text) {
  EchoRequest request;
  request.set_text(text);
  return request.SerializeAsString();
}

// A decoded answer.
struct Answer {
  uint32_t stream_id;
  absl::Status status;
  std::string payload;
};

class ServerSessionTest : public ::testing::Test {
 protected:
  ServerSessionTest() { services_.emplace("bothy.testing.Echo", &service_); }
  ~ServerSessionTest() override {
    session_.reset();
    gate_->Close();
  }

  ServerSession& Start(ServerSession::Options options = {}) {
    options.services = &services_;
    options.gate = gate_;
    options.output_ready = [this] { ++output_ready_; };
    options.now = [this] { return now_; };
    session_ = std::make_unique<ServerSession>(std::move(options));
    return *session_;
  }

  // Runs what other threads have posted.
  void RunPosted() {
    loop_.context().restart();
    loop_.context().poll();
  }

  // Takes the answers that the session wants sent.
  std::vector<Answer> Answers() {
    const std::string bytes(reinterpret_cast<const char*>(session_->output().data()),
                            session_->output().size());
    session_->output().Consume(bytes.size());
    FrameDecoder decoder;
    std::string_view input = bytes;
    std::vector<Answer> answers;
    FrameDecoder::Frame frame;
    while (decoder.Next(&input, &frame) == FrameDecoder::Event::kFrame) {
      EXPECT_EQ(frame.header.type, kFrameResponse);
      EXPECT_EQ(frame.header.flags, 0);
      ResponseView response;
      EXPECT_TRUE(DecodeResponse(frame.data, &response).ok());
      answers.push_back({.stream_id = frame.header.stream_id,
                         .status = response.status,
                         .payload = std::string(response.payload)});
    }
    EXPECT_TRUE(decoder.AtFrameBoundary());
    return answers;
  }

  // The one answer there is to be.
  Answer OnlyAnswer() {
    std::vector<Answer> answers = Answers();
    EXPECT_THAT(answers, SizeIs(1));
    if (answers.empty()) return {.stream_id = 0, .status = absl::OkStatus(), .payload = ""};
    return std::move(answers[0]);
  }

  EventLoop loop_;
  std::shared_ptr<LoopGate> gate_ = std::make_shared<LoopGate>(loop_);
  EchoServer service_;
  ServiceTable services_;
  ServerSession::TimePoint now_{seconds(1000)};
  int output_ready_ = 0;
  std::unique_ptr<ServerSession> session_;
};

TEST_F(ServerSessionTest, AnswersACall) {
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Echo", EchoPayload("hello"))).ok());
  const Answer answer = OnlyAnswer();
  EXPECT_EQ(answer.stream_id, 1u);
  EchoResponse response;
  ASSERT_TRUE(response.ParseFromString(answer.payload));
  EXPECT_EQ(response.text(), "hello");
  EXPECT_EQ(session_->calls_in_flight(), 0u);
  EXPECT_EQ(output_ready_, 0) << "whoever calls Receive looks at the output anyway";
}

TEST_F(ServerSessionTest, AnswersCallsThatComeCutAtEveryByte) {
  const std::string stream =
      RequestFrame(1, "Echo", EchoPayload("a")) + RequestFrame(3, "Echo", EchoPayload("b"));
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    ServerSession& session = Start();
    ASSERT_TRUE(session.Receive(stream.substr(0, cut)).ok());
    ASSERT_TRUE(session.Receive(stream.substr(cut)).ok());
    EXPECT_THAT(Answers(), SizeIs(2)) << cut;
  }
}

TEST_F(ServerSessionTest, HandsOverMetadataAndDeadline) {
  const RequestOptions options{.timeout_nano = 5'000'000'000,
                               .metadata = {{"a", "1"}, {"b", "2"}, {"a", "3"}}};
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Echo", "", options)).ok());
  EchoResponse response;
  ASSERT_TRUE(response.ParseFromString(OnlyAnswer().payload));
  ASSERT_EQ(response.metadata_size(), 3);
  EXPECT_EQ(response.metadata(0).value(), "1");
  EXPECT_EQ(response.metadata(1).value(), "3");
  EXPECT_EQ(response.metadata(2).key(), "b");
  EXPECT_NE(response.timeout_nano(), 0);
}

TEST_F(ServerSessionTest, PassesAStatusOn) {
  FailRequest request;
  request.set_code(9);
  request.set_message("not now");
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Fail", request.SerializeAsString())).ok());
  EXPECT_EQ(OnlyAnswer().status, absl::FailedPreconditionError("not now"));
}

TEST_F(ServerSessionTest, UnknownServiceAndMethodAreUnimplemented) {
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Echo", "", {.service = "other.Service"})).ok());
  EXPECT_EQ(OnlyAnswer().status, absl::UnimplementedError("service other.Service"));
  ASSERT_TRUE(session_->Receive(RequestFrame(3, "Ech", "")).ok());
  EXPECT_EQ(OnlyAnswer().status, absl::UnimplementedError("method Ech"));
}

TEST_F(ServerSessionTest, UndecodablePayloadIsInvalidArgument) {
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Echo", "\x0a\x7f")).ok());
  EXPECT_EQ(OnlyAnswer().status.code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ServerSessionTest, UndecodableRequestIsInvalidArgumentOnItsStream) {
  ASSERT_TRUE(Start().Receive(Frame({.stream_id = 5, .type = kFrameRequest}, "\x0a\x7f")).ok());
  const Answer answer = OnlyAnswer();
  EXPECT_EQ(answer.stream_id, 5u);
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(session_->Receive(RequestFrame(7, "Echo", "")).ok());
  EXPECT_TRUE(OnlyAnswer().status.ok());
}

TEST_F(ServerSessionTest, EvenStreamIdsAreRefused) {
  for (const uint32_t id : {0u, 2u, 0xfffffffeu}) {
    ASSERT_TRUE(Start().Receive(RequestFrame(id, "Echo", "")).ok());
    const Answer answer = OnlyAnswer();
    EXPECT_EQ(answer.stream_id, id);
    EXPECT_EQ(answer.status.code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(ServerSessionTest, AStreamIdInUseIsRefusedAndTheCallGoesOn) {
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Wait", "")).ok());
  ASSERT_TRUE(session_->Receive(RequestFrame(1, "Echo", "")).ok());
  EXPECT_EQ(OnlyAnswer().status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(session_->calls_in_flight(), 1u);
}

TEST_F(ServerSessionTest, AStreamIdCanBeUsedOnlyOnce) {
  Start();
  for (const uint32_t id : {1u, 3u, 201u}) {
    ASSERT_TRUE(session_->Receive(RequestFrame(id, "Echo", "")).ok());
    EXPECT_TRUE(OnlyAnswer().status.ok()) << id;
  }
  for (const uint32_t id : {1u, 3u, 5u, 201u}) {
    ASSERT_TRUE(session_->Receive(RequestFrame(id, "Echo", "")).ok());
    EXPECT_EQ(OnlyAnswer().status.code(), absl::StatusCode::kInvalidArgument) << id;
  }
}

TEST_F(ServerSessionTest, StreamIdsMayOvertakeEachOther) {
  Start();
  for (const uint32_t id : {9u, 3u, 1u, 11u, 5u, 7u}) {
    ASSERT_TRUE(session_->Receive(RequestFrame(id, "Echo", "")).ok());
    EXPECT_TRUE(OnlyAnswer().status.ok()) << id;
  }
}

TEST_F(ServerSessionTest, StreamIdsWrapAround) {
  Start();
  for (const uint32_t id : {0xfffffffdu, 0xffffffffu, 1u, 3u}) {
    ASSERT_TRUE(session_->Receive(RequestFrame(id, "Echo", "")).ok());
    EXPECT_TRUE(OnlyAnswer().status.ok()) << id;
  }
  ASSERT_TRUE(session_->Receive(RequestFrame(0xffffffff, "Echo", "")).ok());
  EXPECT_EQ(OnlyAnswer().status.code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ServerSessionTest, AnOverlongRequestIsResourceExhaustedAndTheNextOneWorks) {
  Start({.max_message = 100});
  ASSERT_TRUE(session_
                  ->Receive(Frame({.stream_id = 1, .type = kFrameRequest}, std::string(101, 'x')) +
                            RequestFrame(3, "Echo", ""))
                  .ok());
  const std::vector<Answer> answers = Answers();
  ASSERT_THAT(answers, SizeIs(2));
  EXPECT_EQ(answers[0].stream_id, 1u);
  EXPECT_EQ(answers[0].status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(answers[1].status.ok());
}

TEST_F(ServerSessionTest, AnOverlongFrameOfAnotherTypeEndsTheSession) {
  EXPECT_FALSE(Start().Receive("GET / HTTP/1.1\r\n").ok());
  EXPECT_FALSE(Start().Receive(std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03", 10)).ok());
  EXPECT_FALSE(Start().Receive(std::string("\x7f\x00\x00\x00\x00\x00\x00\x01\x03\x00", 10)).ok());
}

TEST_F(ServerSessionTest, AnAnswerOverTheLimitIsResourceExhausted) {
  FillRequest request;
  request.set_size(kMaxMessage);
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Fill", request.SerializeAsString())).ok());
  EXPECT_EQ(OnlyAnswer().status.code(), absl::StatusCode::kResourceExhausted);
  request.set_size(kMaxMessage - 16);
  ASSERT_TRUE(session_->Receive(RequestFrame(3, "Fill", request.SerializeAsString())).ok());
  EXPECT_TRUE(OnlyAnswer().status.ok());
}

TEST_F(ServerSessionTest, ResponsesAndUnknownFrameTypesArePassedOver) {
  ASSERT_TRUE(Start()
                  .Receive(Frame({.stream_id = 1, .type = kFrameResponse}, "x") +
                           Frame({.stream_id = 1, .type = 0}, "x") +
                           Frame({.stream_id = 1, .type = 200}, "x"))
                  .ok());
  EXPECT_THAT(Answers(), IsEmpty());
}

TEST_F(ServerSessionTest, ARequestThatClosesItsHalfIsAnOrdinaryCall) {
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Echo", "", {.flags = kFlagRemoteClosed})).ok());
  EXPECT_TRUE(OnlyAnswer().status.ok());
}

TEST_F(ServerSessionTest, AStreamIsUnimplementedAndItsDataIsPassedOver) {
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Echo", "", {.flags = kFlagRemoteOpen})).ok());
  EXPECT_EQ(OnlyAnswer().status.code(), absl::StatusCode::kUnimplemented);
  ASSERT_TRUE(
      session_
          ->Receive(
              Frame({.stream_id = 1, .type = kFrameData}, "x") +
              Frame({.stream_id = 1, .type = kFrameData, .flags = kFlagRemoteClosed | kFlagNoData},
                    ""))
          .ok());
  EXPECT_THAT(Answers(), IsEmpty());
}

TEST_F(ServerSessionTest, DataOnAStreamNeverOpenedIsInvalidArgument) {
  for (const uint32_t id : {1u, 2u, 0u}) {
    ASSERT_TRUE(Start().Receive(Frame({.stream_id = id, .type = kFrameData}, "x")).ok());
    const Answer answer = OnlyAnswer();
    EXPECT_EQ(answer.stream_id, id);
    EXPECT_EQ(answer.status.code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(ServerSessionTest, DataOnAUnaryCallEndsTheCall) {
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Wait", "")).ok());
  ASSERT_TRUE(session_->Receive(Frame({.stream_id = 1, .type = kFrameData}, "x")).ok());
  EXPECT_EQ(OnlyAnswer().status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(service_.cancelled(), 1);
  EXPECT_EQ(session_->calls_in_flight(), 0u);
}

TEST_F(ServerSessionTest, AFrameThatOnlyClosesTheClientsHalfLeavesAUnaryCallAlone) {
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Wait", "")).ok());
  ASSERT_TRUE(
      session_
          ->Receive(Frame(
              {.stream_id = 1, .type = kFrameData, .flags = kFlagRemoteClosed | kFlagNoData}, ""))
          .ok());
  EXPECT_THAT(Answers(), IsEmpty());
  EXPECT_EQ(session_->calls_in_flight(), 1u);
}

TEST_F(ServerSessionTest, AnswersInTheOrderOfTheAnswers) {
  Start();
  for (uint32_t i = 0; i < 32; ++i) {
    ASSERT_TRUE(session_->Receive(RequestFrame(2 * i + 1, "Wait", "")).ok());
  }
  EXPECT_EQ(session_->calls_in_flight(), 32u);
  EXPECT_THAT(Answers(), IsEmpty());
  ASSERT_TRUE(session_->Receive(RequestFrame(65, "Release", "")).ok());
  RunPosted();
  const std::vector<Answer> answers = Answers();
  ASSERT_THAT(answers, SizeIs(33));
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(answers[i].stream_id, 63 - 2 * i);
  EXPECT_EQ(answers[32].stream_id, 65u);
  EXPECT_EQ(session_->calls_in_flight(), 0u);
  EXPECT_EQ(service_.cancelled(), 0);
}

TEST_F(ServerSessionTest, TakesAnswersFromOtherThreads) {
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Wait", "")).ok());
  std::thread([&] {
    auto reply = service_.TakeWaiting();
    EchoResponse response;
    response.set_text("late");
    reply(response);
  }).join();
  EXPECT_THAT(Answers(), IsEmpty());
  RunPosted();
  EXPECT_EQ(output_ready_, 1);
  EchoResponse response;
  ASSERT_TRUE(response.ParseFromString(OnlyAnswer().payload));
  EXPECT_EQ(response.text(), "late");
}

TEST_F(ServerSessionTest, ADroppedReplyIsInternal) {
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Wait", "")).ok());
  static_cast<void>(service_.TakeWaiting());
  RunPosted();
  EXPECT_EQ(OnlyAnswer().status.code(), absl::StatusCode::kInternal);
}

TEST_F(ServerSessionTest, AnswersForTheMethodWhenTheDeadlinePasses) {
  ServerSession& session = Start();
  ASSERT_TRUE(session.Receive(RequestFrame(1, "Wait", "", {.timeout_nano = 2'000'000'000})).ok());
  ASSERT_TRUE(session.Receive(RequestFrame(3, "Wait", "", {.timeout_nano = 1'000'000'000})).ok());
  ASSERT_TRUE(session.Receive(RequestFrame(5, "Wait", "")).ok());
  EXPECT_EQ(session.NextDeadline(), now_ + seconds(1));
  session.ExpireDeadlines();
  EXPECT_THAT(Answers(), IsEmpty());

  now_ += seconds(1);
  session.ExpireDeadlines();
  EXPECT_EQ(output_ready_, 1);
  const Answer answer = OnlyAnswer();
  EXPECT_EQ(answer.stream_id, 3u);
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(service_.cancelled(), 1);
  EXPECT_EQ(session.NextDeadline(), now_ + seconds(1));

  // The method's own answer comes too late and goes nowhere.
  ASSERT_TRUE(session.Receive(RequestFrame(7, "Release", "")).ok());
  RunPosted();
  std::vector<uint32_t> ids;
  for (const Answer& other : Answers()) ids.push_back(other.stream_id);
  EXPECT_THAT(ids, ElementsAre(5, 1, 7));
  EXPECT_EQ(session.NextDeadline(), std::nullopt);
}

TEST_F(ServerSessionTest, ADeadlineInThePastIsExceededWithoutACall) {
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Wait", "", {.timeout_nano = -1})).ok());
  EXPECT_EQ(OnlyAnswer().status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(service_.waiting(), 0u);
}

TEST_F(ServerSessionTest, ADeadlineBeyondTheClockIsNone) {
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Wait", "", {.timeout_nano = INT64_MAX})).ok());
  EXPECT_EQ(session_->NextDeadline(), std::nullopt);
  EXPECT_EQ(session_->calls_in_flight(), 1u);
}

TEST_F(ServerSessionTest, ClosingCancelsTheCallsInFlight) {
  ServerSession& session = Start();
  ASSERT_TRUE(session.Receive(RequestFrame(1, "Wait", "") + RequestFrame(3, "Wait", "")).ok());
  session.Close();
  EXPECT_EQ(service_.cancelled(), 2);
  // Answers that come now have nowhere to go, and that's fine.
  static_cast<void>(service_.TakeWaiting());
  auto reply = service_.TakeWaiting();
  session_.reset();
  reply(EchoResponse());
  RunPosted();
}

TEST_F(ServerSessionTest, AnswersMayOutliveTheServer) {
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Wait", "")).ok());
  auto reply = service_.TakeWaiting();
  session_.reset();
  gate_->Close();
  reply(EchoResponse());
}

TEST_F(ServerSessionTest, TellsACallThatItIsCancelled) {
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Wait", "")).ok());
  const auto call = service_.last_call();
  EXPECT_FALSE(call->cancelled());
  session_->Close();
  EXPECT_TRUE(call->cancelled());
  bool ran = false;
  call->OnCancel([&] { ran = true; });
  RunPosted();
  EXPECT_TRUE(ran) << "a callback that comes after the fact runs all the same";
}

TEST_F(ServerSessionTest, AnAnsweredCallIsNeverCancelled) {
  ASSERT_TRUE(Start().Receive(RequestFrame(1, "Echo", "")).ok());
  const auto call = service_.last_call();
  bool ran = false;
  call->OnCancel([&] { ran = true; });
  session_->Close();
  RunPosted();
  EXPECT_FALSE(call->cancelled());
  EXPECT_FALSE(ran);
}

TEST_F(ServerSessionTest, RefusesCallsOverTheLimit) {
  Start({.max_calls_in_flight = 2});
  ASSERT_TRUE(session_
                  ->Receive(RequestFrame(1, "Wait", "") + RequestFrame(3, "Wait", "") +
                            RequestFrame(5, "Wait", ""))
                  .ok());
  const Answer answer = OnlyAnswer();
  EXPECT_EQ(answer.stream_id, 5u);
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(ServerSessionTest, HoldsInputBackWhileAnswersAreNotRead) {
  Start({.max_write_backlog_bytes = 1000});
  FillRequest request;
  request.set_size(600);
  std::string stream;
  for (uint32_t i = 0; i < 100; ++i) {
    stream += RequestFrame(2 * i + 1, "Fill", request.SerializeAsString());
  }
  ASSERT_TRUE(session_->Receive(stream).ok());
  EXPECT_FALSE(session_->WantsInput());
  EXPECT_LT(session_->output().size(), 2000u);

  uint32_t answered = 0;
  while (!session_->output().empty()) {
    EXPECT_FALSE(session_->CanResume());
    answered += static_cast<uint32_t>(Answers().size());
    if (!session_->CanResume()) break;
    ASSERT_TRUE(session_->Resume().ok());
    EXPECT_LT(session_->output().size(), 2000u);
  }
  EXPECT_EQ(answered, 100u);
  EXPECT_TRUE(session_->WantsInput());
}

TEST_F(ServerSessionTest, ARefusedPeerHearsWhyAndIsDoneWith) {
  Start({.refusal = absl::PermissionDeniedError("uid 7 may not")});
  EXPECT_FALSE(session_->Receive(RequestFrame(1, "Wait", "") + RequestFrame(3, "Wait", "")).ok());
  EXPECT_EQ(OnlyAnswer().status, absl::PermissionDeniedError("uid 7 may not"));
  EXPECT_EQ(service_.waiting(), 0u);
}

}  // namespace
}  // namespace bothy::ttrpc
