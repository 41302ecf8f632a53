// Our client against our server over real sockets: what users of the two see.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "ttrpc/client.h"
#include "ttrpc/server.h"
#include "ttrpc/testing/echo_server.h"
#include "ttrpc/testing/server_fixture.h"

namespace bothy::ttrpc {
namespace {

using bothy::testing::EchoClient;
using bothy::testing::EchoRequest;
using bothy::testing::EchoResponse;
using bothy::testing::FailRequest;
using bothy::testing::FillRequest;
using std::chrono::milliseconds;

class RoundTripTest : public bothy::testing::ServerFixture {};

EchoRequest Text(const std::string& text) {
  EchoRequest request;
  request.set_text(text);
  return request;
}

TEST_F(RoundTripTest, AnswersACall) {
  StartServer();
  const auto connection = Connect();
  const auto response = EchoClient(*connection).Echo(Text("hello"));
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->text(), "hello");
}

TEST_F(RoundTripTest, CarriesEveryStatusCode) {
  StartServer();
  const auto connection = Connect();
  EchoClient client(*connection);
  for (int code = 1; code <= 16; ++code) {
    FailRequest request;
    request.set_code(code);
    request.set_message("code " + std::to_string(code));
    const absl::Status status = client.Fail(request).status();
    EXPECT_EQ(status.raw_code(), code);
    EXPECT_EQ(std::string(status.message()), request.message());
  }
}

TEST_F(RoundTripTest, CarriesMetadataAndTheDeadline) {
  StartServer();
  const auto connection = Connect();
  const auto response =
      EchoClient(*connection)
          .Echo({}, {.timeout = std::chrono::hours(1), .metadata = {{"b", "2"}, {"a", "1"}}});
  ASSERT_TRUE(response.ok()) << response.status();
  ASSERT_EQ(response->metadata_size(), 2);
  EXPECT_EQ(response->metadata(0).key(), "a");
  EXPECT_EQ(response->metadata(1).value(), "2");
  EXPECT_GT(response->timeout_nano(), 0);
  EXPECT_LE(response->timeout_nano(), 3600'000'000'000);
}

TEST_F(RoundTripTest, CarriesMessagesUpToTheLimit) {
  StartServer();
  const auto connection = Connect();
  EchoClient client(*connection);
  for (const size_t size : {0, 1, 10000, 1 << 20, (4 << 20) - 100}) {
    EchoRequest request;
    request.mutable_payload()->assign(size, 'x');
    const auto response = client.Echo(request);
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->payload(), request.payload());
  }
}

TEST_F(RoundTripTest, AMessageOverTheLimitIsResourceExhaustedEitherWay) {
  StartServer();
  const auto connection = Connect();
  EchoClient client(*connection);
  EchoRequest request;
  request.mutable_payload()->assign(kMaxMessage, 'x');
  EXPECT_EQ(client.Echo(request).status().code(), absl::StatusCode::kResourceExhausted);
  FillRequest fill;
  fill.set_size(kMaxMessage);
  EXPECT_EQ(client.Fill(fill).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(client.Echo(Text("still there")).ok());
}

TEST_F(RoundTripTest, MethodsThatAreNotOverriddenAreUnimplemented) {
  class Partial : public bothy::testing::EchoService {};
  Partial service;
  thread_.loop().PostAndWait([&] {
    server_ = *Server::Create(thread_.loop(), {});
    ASSERT_TRUE(server_->Register(service).ok());
  });
  {
    const auto connection = Connect();
    EXPECT_EQ(EchoClient(*connection).Echo({}).status(), absl::UnimplementedError("method Echo"));
  }
  StopServer();
}

TEST_F(RoundTripTest, AsynchronousCallsAnswer) {
  StartServer();
  const auto connection = Connect();
  EchoClient client(*connection);
  std::promise<absl::StatusOr<EchoResponse>> promise;
  client.EchoAsync(Text("later"), {}, [&](const absl::StatusOr<EchoResponse>& response) {
    promise.set_value(response);
  });
  const auto response = promise.get_future().get();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->text(), "later");
}

TEST_F(RoundTripTest, ThirtyTwoCallsInFlightAnswerInAnyOrder) {
  StartServer();
  const auto connection = Connect();
  EchoClient client(*connection);
  constexpr int kCalls = 32;
  std::latch answered(kCalls);
  std::vector<int> order;  // by the client's thread, then behind the latch
  for (int i = 0; i < kCalls; ++i) {
    client.WaitAsync({}, {}, [&, i](const absl::StatusOr<EchoResponse>& response) {
      EXPECT_TRUE(response.ok()) << response.status();
      order.push_back(i);
      answered.count_down();
    });
  }
  // A blocking call passes between them.
  EXPECT_TRUE(client.Echo(Text("quick")).ok());
  const auto released = client.Release({});
  ASSERT_TRUE(released.ok()) << released.status();
  EXPECT_EQ(released->released(), kCalls);
  answered.wait();
  for (int i = 0; i < kCalls; ++i) EXPECT_EQ(order[i], kCalls - 1 - i);
}

TEST_F(RoundTripTest, ThirtyTwoThreadsShareAConnection) {
  StartServer();
  const auto connection = Connect();
  EchoClient client(*connection);
  std::vector<std::thread> threads;
  threads.reserve(32);
  std::atomic<int> wrong = 0;
  for (int thread = 0; thread < 32; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 50; ++i) {
        const std::string text = std::to_string(thread) + "/" + std::to_string(i);
        const auto response = client.Echo(Text(text));
        if (!response.ok() || response->text() != text) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(RoundTripTest, BlockingAndAsynchronousCallsMix) {
  StartServer();
  const auto connection = Connect();
  EchoClient client(*connection);
  constexpr int kThreads = 4;
  constexpr int kCalls = 200;
  std::latch answered(ptrdiff_t{kThreads} * kCalls);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&] {
      for (int i = 0; i < kCalls; ++i) {
        client.EchoAsync(Text("a"), {}, [&](const absl::StatusOr<EchoResponse>& response) {
          if (!response.ok() || response->text() != "a") ++wrong;
          answered.count_down();
        });
        const auto response = client.Echo(Text("b"));
        if (!response.ok() || response->text() != "b") ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  answered.wait();
  EXPECT_EQ(wrong, 0);
}

TEST_F(RoundTripTest, CallbacksMayCallBlockingAndNot) {
  StartServer();
  const auto connection = Connect();
  EchoClient client(*connection);
  std::promise<void> done;
  client.EchoAsync({}, {}, [&](const absl::StatusOr<EchoResponse>&) {
    EXPECT_TRUE(client.Echo(Text("inside")).ok());
    client.EchoAsync({}, {}, [&](const absl::StatusOr<EchoResponse>& response) {
      EXPECT_TRUE(response.ok());
      done.set_value();
    });
  });
  done.get_future().wait();
}

TEST_F(RoundTripTest, ADeadlineEndsACallAndTheConnectionGoesOn) {
  StartServer();
  const auto connection = Connect();
  EchoClient client(*connection);
  EXPECT_EQ(client.Wait({}, {.timeout = milliseconds(1)}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(client.Wait({}, {.timeout = milliseconds(0)}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  std::promise<absl::Status> promise;
  client.WaitAsync(
      {}, {.timeout = milliseconds(1)},
      [&](const absl::StatusOr<EchoResponse>& response) { promise.set_value(response.status()); });
  EXPECT_EQ(promise.get_future().get().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(client.Echo({}, {.timeout = std::chrono::nanoseconds::max()}).ok());
  EXPECT_TRUE(client.Echo({}, {.timeout = std::chrono::hours(1)}).ok());
}

TEST_F(RoundTripTest, TheServerItselfAnswersWhenTheDeadlinePasses) {
  StartServer();
  const auto connection = Connect();
  // The server hears of this deadline; the client, which has none, waits for its answer.
  bothy::testing::RawPeer peer(Socket());
  ASSERT_TRUE(peer.Send(bothy::testing::RequestFrame(1, "Wait", "", {.timeout_nano = 1'000'000})));
  EXPECT_EQ(peer.ReceiveStatus().code(), absl::StatusCode::kDeadlineExceeded);
  OnLoop([&] { EXPECT_EQ(service_.cancelled(), 1); });
}

TEST_F(RoundTripTest, ALostConnectionIsUnavailableForEveryCall) {
  StartServer();
  const auto connection = Connect();
  EchoClient client(*connection);
  std::latch answered(2);
  for (int i = 0; i < 2; ++i) {
    client.WaitAsync({}, {}, [&](const absl::StatusOr<EchoResponse>& response) {
      EXPECT_EQ(response.status().code(), absl::StatusCode::kUnavailable);
      answered.count_down();
    });
  }
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back(
        [&] { EXPECT_EQ(client.Wait({}).status().code(), absl::StatusCode::kUnavailable); });
  }
  WaitUntilOnLoop([&] { return service_.waiting() == 6; });
  OnLoop([&] { server_->Shutdown(); });
  for (auto& thread : threads) thread.join();
  answered.wait();
  EXPECT_EQ(client.Echo({}).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(RoundTripTest, AClientThatGoesAwayTakesItsCallsWithItAndNothingElse) {
  StartServer();
  auto leaving = Connect();
  const auto staying = Connect();
  std::promise<absl::StatusOr<EchoResponse>> stays;
  EchoClient(*leaving).WaitAsync({}, {}, [](const absl::StatusOr<EchoResponse>& response) {
    EXPECT_EQ(response.status().code(), absl::StatusCode::kUnavailable);
  });
  EchoClient(*staying).WaitAsync(
      {}, {}, [&](const absl::StatusOr<EchoResponse>& response) { stays.set_value(response); });
  WaitUntilOnLoop([&] { return service_.waiting() == 2; });
  leaving.reset();
  WaitUntilOnLoop([&] { return service_.cancelled() == 1; });
  ASSERT_TRUE(EchoClient(*staying).Release({}).ok());
  EXPECT_TRUE(stays.get_future().get().ok());
}

TEST_F(RoundTripTest, AClosedClientEndsTheCallsOfOtherThreads) {
  StartServer();
  const auto connection = Connect();
  EchoClient client(*connection);
  std::thread waiting(
      [&] { EXPECT_EQ(client.Wait({}).status().code(), absl::StatusCode::kUnavailable); });
  WaitUntilOnLoop([&] { return service_.waiting() == 1; });
  connection->Close();
  waiting.join();
}

TEST_F(RoundTripTest, ASlowCallDelaysNoOther) {
  StartServer();
  const auto connection = Connect();
  EchoClient client(*connection);
  std::thread waiting([&] { EXPECT_TRUE(client.Wait({}).ok()); });
  WaitUntilOnLoop([&] { return service_.waiting() == 1; });
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(client.Echo({}).ok());
  EXPECT_TRUE(client.Release({}).ok());
  waiting.join();
}

TEST_F(RoundTripTest, ManyBigAnswersArriveWhole) {
  StartServer();
  const auto connection = Connect();
  EchoClient client(*connection);
  constexpr int kCalls = 32;
  std::latch answered(kCalls);
  for (int i = 0; i < kCalls; ++i) {
    EchoRequest request;
    request.mutable_payload()->assign((1 << 20) + i, static_cast<char>('a' + i % 26));
    client.EchoAsync(request, {}, [&, i](const absl::StatusOr<EchoResponse>& response) {
      ASSERT_TRUE(response.ok()) << response.status();
      EXPECT_EQ(response->payload(), std::string((1 << 20) + i, static_cast<char>('a' + i % 26)));
      answered.count_down();
    });
  }
  answered.wait();
}

TEST_F(RoundTripTest, ThousandsOfCallsFromCallbacks) {
  StartServer();
  const auto connection = Connect();
  EchoClient client(*connection);
  constexpr int kInFlight = 16;
  constexpr int kEach = 200;
  std::latch answered(kInFlight);
  std::function<void(int)> call = [&](int left) {
    client.EchoAsync(Text("x"), {}, [&, left](const absl::StatusOr<EchoResponse>& response) {
      EXPECT_TRUE(response.ok()) << response.status();
      if (left == 1) {
        answered.count_down();
      } else {
        call(left - 1);
      }
    });
  };
  for (int i = 0; i < kInFlight; ++i) call(kEach);
  answered.wait();
}

}  // namespace
}  // namespace bothy::ttrpc
