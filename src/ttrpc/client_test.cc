// The client against servers that misbehave, at the level of sockets.
#include "ttrpc/client.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "ttrpc/testing/echo_server.h"
#include "ttrpc/testing/frames.h"

namespace bothy::ttrpc {
namespace {

using bothy::testing::EchoClient;
using bothy::testing::EchoRequest;
using bothy::testing::EchoResponse;
using bothy::testing::ErrorFrame;
using bothy::testing::Frame;
using bothy::testing::RawPeer;
using bothy::testing::ResponseFrame;
using bothy::testing::SocketPair;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::string EchoPayload(const std::string& text) {
  EchoResponse response;
  response.set_text(text);
  return response.SerializeAsString();
}

class ClientTest : public ::testing::Test {
 protected:
  ClientTest() {
    auto [ours, theirs] = SocketPair();
    server_ = std::make_unique<RawPeer>(std::move(theirs));
    client_ = Client::Adopt(std::move(ours));
  }

  // Makes one blocking call while the server does `serve` with its request.
  absl::StatusOr<EchoResponse> CallWhile(const std::function<void(const RawPeer::Received&)>& serve,
                                         const CallOptions& options = {}) {
    std::thread server([&] {
      if (const auto request = server_->Receive()) serve(*request);
    });
    auto response = EchoClient(*client_).Echo({}, options);
    server.join();
    return response;
  }

  std::unique_ptr<RawPeer> server_;
  std::unique_ptr<Client> client_;
};

TEST_F(ClientTest, RequestsAreNumberedWithOddIdsInOrder) {
  for (uint32_t id = 1; id < 9; id += 2) {
    const auto response = CallWhile([&](const RawPeer::Received& request) {
      EXPECT_EQ(request.header.stream_id, id);
      EXPECT_EQ(request.header.type, kFrameRequest);
      EXPECT_EQ(request.header.flags, 0);
      RequestView view;
      EXPECT_TRUE(DecodeRequest(request.data, &view).ok());
      EXPECT_EQ(view.service, "bothy.testing.Echo");
      EXPECT_EQ(view.method, "Echo");
      EXPECT_EQ(view.timeout_nano, 0);
      EXPECT_TRUE(view.metadata.empty());
      server_->Send(ResponseFrame(id, EchoPayload("x")));
    });
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->text(), "x");
  }
}

TEST_F(ClientTest, TellsTheServerItsDeadline) {
  CallWhile(
      [&](const RawPeer::Received& request) {
        RequestView view;
        EXPECT_TRUE(DecodeRequest(request.data, &view).ok());
        EXPECT_EQ(view.timeout_nano, 5'000'000'000);
        server_->Send(ResponseFrame(1, ""));
      },
      {.timeout = seconds(5)})
      .IgnoreError();
}

TEST_F(ClientTest, ReadsAnAnswerThatComesByteByByte) {
  const auto response = CallWhile([&](const RawPeer::Received&) {
    for (const char byte : ResponseFrame(1, EchoPayload("slow"))) server_->Send({&byte, 1});
  });
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->text(), "slow");
}

TEST_F(ClientTest, PassesOverWhatIsNotItsAnswer) {
  const auto response = CallWhile([&](const RawPeer::Received&) {
    server_->Send(ResponseFrame(99, EchoPayload("nobody's")) + ResponseFrame(2, "x") +
                  Frame({.stream_id = 1, .type = kFrameRequest}, "x") +
                  Frame({.stream_id = 1, .type = 77}, "x") + ResponseFrame(1, EchoPayload("mine")));
  });
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->text(), "mine");
}

TEST_F(ClientTest, AnUndecodableResponseFailsItsCallOnly) {
  EXPECT_EQ(CallWhile([&](const RawPeer::Received&) {
              server_->Send(Frame({.stream_id = 1, .type = kFrameResponse}, "\xff"));
            })
                .status()
                .code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(CallWhile([&](const RawPeer::Received&) { server_->Send(ResponseFrame(3, "\xff")); })
                .status()
                .code(),
            absl::StatusCode::kInternal);
  EXPECT_TRUE(
      CallWhile([&](const RawPeer::Received&) { server_->Send(ResponseFrame(5, "")); }).ok());
}

TEST_F(ClientTest, AStreamForAnAnswerFailsItsCallOnly) {
  EXPECT_EQ(CallWhile([&](const RawPeer::Received&) {
              server_->Send(Frame({.stream_id = 1, .type = kFrameData, .flags = 1}, "x"));
            })
                .status()
                .code(),
            absl::StatusCode::kInternal);
  EXPECT_TRUE(
      CallWhile([&](const RawPeer::Received&) { server_->Send(ResponseFrame(3, "")); }).ok());
}

TEST_F(ClientTest, AnOverlongAnswerFailsItsCallOnly) {
  EchoClient client(*client_);
  // Its data is read on behalf of the call that comes next.
  std::thread server([&] {
    server_->Receive();
    server_->Send(
        Frame({.stream_id = 1, .type = kFrameResponse}, std::string(size_t{kMaxMessage} + 1, 'x')));
    server_->Receive();
    server_->Send(ResponseFrame(3, ""));
  });
  EXPECT_EQ(client.Echo({}).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(client.Echo({}).ok());
  server.join();
}

TEST_F(ClientTest, AnAnswerAfterTheDeadlineIsPassedOver) {
  EXPECT_EQ(EchoClient(*client_).Echo({}, {.timeout = milliseconds(1)}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  const auto late = server_->Receive();
  ASSERT_TRUE(late.has_value());
  server_->Send(ResponseFrame(late->header.stream_id, EchoPayload("late")));
  const auto response = CallWhile([&](const RawPeer::Received& request) {
    server_->Send(ResponseFrame(request.header.stream_id, EchoPayload("in time")));
  });
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->text(), "in time");
}

TEST_F(ClientTest, AServerThatClosesIsUnavailable) {
  EXPECT_EQ(CallWhile([&](const RawPeer::Received&) { server_->Close(); }).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(EchoClient(*client_).Echo({}).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClientTest, AnAnswerCutByTheEndOfTheConnectionIsUnavailable) {
  const auto response = CallWhile([&](const RawPeer::Received&) {
    server_->Send(ResponseFrame(1, EchoPayload("cut")).substr(0, 12));
    server_->Close();
  });
  EXPECT_EQ(response.status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClientTest, AnAnswerThatIsThereBeforeTheConnectionBreaksCounts) {
  server_->Send(ErrorFrame(1, absl::PermissionDeniedError("not you")));
  server_->Close();
  EXPECT_EQ(EchoClient(*client_).Echo({}).status(), absl::PermissionDeniedError("not you"));
  EXPECT_EQ(EchoClient(*client_).Echo({}).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClientTest, MetadataThatIsNotUtf8IsInvalidArgument) {
  EXPECT_EQ(EchoClient(*client_).Echo({}, {.metadata = {{"key", "\xff"}}}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(ClientTest, AsynchronousCallsTimeOutWhileABlockingCallReads) {
  EchoClient client(*client_);
  std::promise<absl::Status> timed_out;
  std::thread blocking([&] { EXPECT_TRUE(client.Echo({}).ok()); });
  const auto first = server_->Receive();
  client.EchoAsync({}, {.timeout = milliseconds(1)},
                   [&](const absl::StatusOr<EchoResponse>& response) {
                     timed_out.set_value(response.status());
                   });
  EXPECT_EQ(timed_out.get_future().get().code(), absl::StatusCode::kDeadlineExceeded);
  server_->Send(ResponseFrame(first->header.stream_id, ""));
  blocking.join();
}

TEST_F(ClientTest, AnEarlierDeadlineShortensTheSleepOfTheClientsThread) {
  EchoClient client(*client_);
  std::promise<absl::Status> late;
  std::promise<absl::Status> early;
  client.EchoAsync({}, {.timeout = seconds(3600)},
                   [&](const absl::StatusOr<EchoResponse>& r) { late.set_value(r.status()); });
  client.EchoAsync({}, {.timeout = milliseconds(1)},
                   [&](const absl::StatusOr<EchoResponse>& r) { early.set_value(r.status()); });
  EXPECT_EQ(early.get_future().get().code(), absl::StatusCode::kDeadlineExceeded);
  client_->Close();
  EXPECT_EQ(late.get_future().get().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClientTest, ADeadlineIsKeptWhileAnotherThreadReads) {
  EchoClient client(*client_);
  std::thread reader([&] { EXPECT_TRUE(client.Echo({}).ok()); });
  const auto first = server_->Receive();
  EXPECT_EQ(client.Echo({}, {.timeout = milliseconds(1)}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  server_->Send(ResponseFrame(first->header.stream_id, ""));
  reader.join();
}

TEST_F(ClientTest, WhoeverWaitsTakesOverTheReading) {
  EchoClient client(*client_);
  std::vector<std::thread> callers;
  callers.reserve(8);
  std::atomic<int> answered = 0;
  for (int i = 0; i < 8; ++i) {
    callers.emplace_back([&] {
      EXPECT_TRUE(client.Echo({}).ok());
      ++answered;
    });
  }
  std::vector<uint32_t> ids;
  ids.reserve(8);
  for (int i = 0; i < 8; ++i) ids.push_back(server_->Receive()->header.stream_id);
  // The first one to call is likely the one that reads: it leaves first.
  for (int i = 0; i < 8; ++i) {
    server_->Send(ResponseFrame(ids[i], ""));
    while (answered <= i) std::this_thread::yield();
  }
  for (auto& caller : callers) caller.join();
}

TEST_F(ClientTest, SendsMoreThanTheSocketTakesWhileTheServerReadsLate) {
  EchoClient client(*client_);
  constexpr int kCalls = 8;
  std::latch answered(kCalls);
  EchoRequest request;
  request.mutable_payload()->assign(2 << 20, 'x');
  for (int i = 0; i < kCalls; ++i) {
    client.EchoAsync(request, {}, [&](const absl::StatusOr<EchoResponse>& response) {
      EXPECT_TRUE(response.ok()) << response.status();
      answered.count_down();
    });
  }
  std::thread blocking([&] { EXPECT_TRUE(client.Echo(request).ok()); });
  for (int i = 0; i < kCalls + 1; ++i) {
    const auto received = server_->Receive();
    ASSERT_TRUE(received.has_value());
    RequestView view;
    ASSERT_TRUE(DecodeRequest(received->data, &view).ok());
    EXPECT_EQ(view.payload, request.SerializeAsString());
    EXPECT_EQ(received->header.stream_id, 2u * i + 1);
    server_->Send(ResponseFrame(received->header.stream_id, ""));
  }
  answered.wait();
  blocking.join();
}

TEST_F(ClientTest, RequestsThatNobodyReadsAreBounded) {
  EchoClient client(*client_);
  EchoRequest request;
  request.mutable_payload()->assign(4000000, 'x');
  std::promise<absl::Status> refused;
  std::atomic<int> others = 0;
  for (int i = 0; i < 40; ++i) {
    client.EchoAsync(request, {}, [&](const absl::StatusOr<EchoResponse>& response) {
      if (response.status().code() != absl::StatusCode::kResourceExhausted || others++ > 0) return;
      refused.set_value(response.status());
    });
  }
  refused.get_future().wait();
  client_.reset();
}

TEST_F(ClientTest, ADeadlineHoldsForARequestThatNobodyReads) {
  EchoRequest request;
  request.mutable_payload()->assign(4000000, 'x');
  EXPECT_EQ(EchoClient(*client_).Echo(request, {.timeout = milliseconds(1)}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  // The rest of the request still goes out: the next one isn't garbled.
  EXPECT_EQ(server_->Receive()->header.stream_id, 1u);
  EXPECT_TRUE(
      CallWhile([&](const RawPeer::Received&) { server_->Send(ResponseFrame(3, "")); }).ok());
}

TEST_F(ClientTest, TakesANonBlockingSocket) {
  auto [ours, theirs] = SocketPair();
  ASSERT_EQ(::fcntl(ours.get(), F_SETFL, O_NONBLOCK), 0);
  client_ = Client::Adopt(std::move(ours));
  server_ = std::make_unique<RawPeer>(std::move(theirs));
  EXPECT_TRUE(
      CallWhile([&](const RawPeer::Received&) { server_->Send(ResponseFrame(1, "")); }).ok());
}

TEST_F(ClientTest, EveryCallbackRunsBeforeTheClientIsGone) {
  std::atomic<int> ran = 0;
  for (int i = 0; i < 10; ++i) {
    EchoClient(*client_).EchoAsync({}, {}, [&](const absl::StatusOr<EchoResponse>& response) {
      EXPECT_EQ(response.status().code(), absl::StatusCode::kUnavailable);
      ++ran;
    });
  }
  client_.reset();
  EXPECT_EQ(ran, 10);
}

}  // namespace
}  // namespace bothy::ttrpc
