#include "metrics/endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "metrics/testing/http_client.h"
#include "support/testing/test_folder.h"

namespace bothy::metrics {
namespace {

using inspect::Directory;
using inspect::Value;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kGet[] = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";

// A tree whose only counter counts the looks at it.
class EndpointTest : public ::testing::Test {
 protected:
  void Serve(Limits limits = {}) {
    limits.between_looks = std::chrono::milliseconds(0);
    Serve(limits, [this](const Endpoint::Look& look) { look(Tree(++looks_)); });
  }
  void Serve(Limits limits, Endpoint::Ask ask) {
    auto socket = Listen(*ListenAddress::Parse("unix:" + path_));
    ASSERT_TRUE(socket.ok()) << socket.status();
    auto endpoint = Endpoint::Create(*std::move(socket), std::move(ask), limits);
    ASSERT_TRUE(endpoint.ok()) << endpoint.status();
    endpoint_ = *std::move(endpoint);
  }
  static Value Tree(uint64_t count) {
    return Directory{{{"vm", Directory{{{"restarts", count}}}}}};
  }
  static std::string Sample(uint64_t count) {
    return "bothy_vm_restarts_total " + std::to_string(count) + "\n";
  }
  std::string Answer(std::string_view request) {
    HttpClient client(path_);
    client.Send(request);
    return client.ReadAll();
  }

  const TestFolder folder_;
  const std::string path_ = folder_ / "m.sock";
  std::atomic<uint64_t> looks_{0};
  std::unique_ptr<Endpoint> endpoint_;
};

TEST_F(EndpointTest, AConnectionServesManyScrapes) {
  Serve();
  HttpClient client(path_);
  for (uint64_t i = 1; i <= 3; ++i) {
    ASSERT_TRUE(client.Send(kGet));
    const std::string answer = client.ReadAnswer();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
    EXPECT_THAT(answer,
                HasSubstr("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    EXPECT_THAT(answer, EndsWith(Sample(i)));
  }
}

TEST_F(EndpointTest, RequestsMayComeInOnePieceOrInMany) {
  Serve();
  HttpClient client(path_);
  ASSERT_TRUE(client.Send(std::string(kGet) + kGet));
  EXPECT_THAT(client.ReadAnswer(), EndsWith(Sample(1)));
  EXPECT_THAT(client.ReadAnswer(), EndsWith(Sample(2)));
  for (const char c : std::string_view(kGet)) ASSERT_TRUE(client.Send({&c, 1}));
  EXPECT_THAT(client.ReadAnswer(), EndsWith(Sample(3)));
}

TEST_F(EndpointTest, HeadHasNoBody) {
  Serve();
  const std::string answer =
      Answer("HEAD /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\n"));
  EXPECT_THAT(answer, Not(HasSubstr("Content-Length: 0")));
}

TEST_F(EndpointTest, WhatItDoesntServeIsSaid) {
  Serve();
  const std::string end = " HTTP/1.1\r\nConnection: close\r\n\r\n";
  EXPECT_THAT(Answer("GET /" + end), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(Answer("DELETE /metrics" + end), StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(Answer("DELETE /metrics" + end), HasSubstr("\r\nAllow: GET, HEAD\r\n"));
  EXPECT_EQ(looks_, 0U);
}

TEST_F(EndpointTest, WhatItCantFollowEndsTheConnection) {
  Serve();
  EXPECT_THAT(Answer("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"),
              StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(Answer("nonsense\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Answer("GET /metrics HTTP/3\r\n\r\n"), StartsWith("HTTP/1.1 505 "));
  EXPECT_THAT(Answer("GET /" + std::string(100'000, 'x')), StartsWith("HTTP/1.1 431 "));
}

TEST_F(EndpointTest, WhoNeverSaysWhatItWantsIsDisconnected) {
  Serve({.exchange = std::chrono::milliseconds(20)});
  EXPECT_EQ(Answer(""), "");
  EXPECT_EQ(Answer("GET /metr"), "");
}

TEST_F(EndpointTest, WhoSaysNothingMoreIsDisconnected) {
  Serve({.idle = std::chrono::milliseconds(20)});
  EXPECT_THAT(Answer(kGet), EndsWith(Sample(1)));
}

TEST_F(EndpointTest, OneMoreTakesThePlaceOfTheOneSilentTheLongest) {
  Serve({.connections = 2});
  HttpClient silent(path_);
  HttpClient second(path_);
  // Both have been accepted when the second has its answer.
  ASSERT_TRUE(second.Send(kGet));
  EXPECT_THAT(second.ReadAnswer(), EndsWith(Sample(1)));
  HttpClient third(path_);
  ASSERT_TRUE(third.Send(kGet));
  EXPECT_THAT(third.ReadAnswer(), EndsWith(Sample(2)));
  EXPECT_EQ(silent.ReadAll(), "");
  ASSERT_TRUE(second.Send(kGet));
  EXPECT_THAT(second.ReadAnswer(), EndsWith(Sample(3)));
}

TEST_F(EndpointTest, ScrapesShareALook) {
  std::promise<Endpoint::Look> asked;
  std::atomic<int> asks{0};
  Serve({}, [&](Endpoint::Look look) {
    if (++asks == 1) return asked.set_value(std::move(look));
    look(Tree(2));
  });
  HttpClient first(path_);
  ASSERT_TRUE(first.Send(kGet));
  const Endpoint::Look look = asked.get_future().get();
  std::vector<std::unique_ptr<HttpClient>> others;
  for (int i = 0; i < 5; ++i) {
    others.push_back(std::make_unique<HttpClient>(path_));
    ASSERT_TRUE(others.back()->Send(kGet));
  }
  // They have been read when this one, which came behind them, has been answered.
  EXPECT_THAT(Answer("GET / HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.1 404 "));
  look(Tree(1));
  EXPECT_THAT(first.ReadAnswer(), EndsWith(Sample(1)));
  for (const auto& other : others) EXPECT_THAT(other->ReadAnswer(), EndsWith(Sample(2)));
}

TEST_F(EndpointTest, ALookThatFailsIsAnAnswer) {
  Serve({}, [](const Endpoint::Look& look) { look(absl::UnavailableError("ending")); });
  EXPECT_THAT(Answer("GET /metrics HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.1 503 "));
}

TEST_F(EndpointTest, AnAnswerMayComeAfterItsEnd) {
  std::promise<Endpoint::Look> asked;
  Serve({}, [&](Endpoint::Look look) { asked.set_value(std::move(look)); });
  HttpClient client(path_);
  ASSERT_TRUE(client.Send(kGet));
  const Endpoint::Look look = asked.get_future().get();
  endpoint_.reset();
  EXPECT_EQ(client.ReadAll(), "");
  look(Tree(1));
  EXPECT_TRUE(folder_.Names().empty());
}

TEST_F(EndpointTest, ManyClientsAtOnce) {
  Serve();
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([this] {
      HttpClient client(path_);
      std::string before;
      for (int round = 0; round < 20; ++round) {
        ASSERT_TRUE(client.Send(kGet));
        EXPECT_THAT(client.ReadAnswer(), HasSubstr("bothy_vm_restarts_total "));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace bothy::metrics
