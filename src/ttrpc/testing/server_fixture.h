// A fixture with a server of the test service on a loop thread of its own.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <utility>

#include "support/event_loop.h"
#include "ttrpc/client.h"
#include "ttrpc/server.h"
#include "ttrpc/testing/echo_server.h"
#include "ttrpc/testing/frames.h"

namespace bothy::testing {

class ServerFixture : public ::testing::Test {
 protected:
  ~ServerFixture() override { StopServer(); }

  void StartServer(ttrpc::ServerOptions options = {}) {
    OnLoop([&] {
      auto server = ttrpc::Server::Create(thread_.loop(), std::move(options));
      ASSERT_TRUE(server.ok()) << server.status();
      server_ = *std::move(server);
      ASSERT_TRUE(server_->Register(service_).ok());
    });
  }
  void StopServer() {
    OnLoop([&] { server_.reset(); });
  }

  // A connection that the server serves: the client's end.
  UniqueFd Socket() {
    auto [ours, theirs] = SocketPair();
    OnLoop([&server = server_, &socket = theirs] {
      EXPECT_TRUE(server->Adopt(std::move(socket)).ok());
    });
    return std::move(ours);
  }
  std::unique_ptr<ttrpc::Client> Connect() { return ttrpc::Client::Adopt(Socket()); }

  void OnLoop(const std::function<void()>& task) { thread_.loop().PostAndWait(task); }
  // Returns once `condition`, asked on the loop thread, is true. The test's own time limit is the
  // bound.
  void WaitUntilOnLoop(const std::function<bool()>& condition) {
    for (bool reached = false; !reached;) OnLoop([&] { reached = condition(); });
  }

  EchoServer service_;
  LoopThread thread_{"server"};
  std::unique_ptr<ttrpc::Server> server_;
};

}  // namespace bothy::testing
