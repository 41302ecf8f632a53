// Our client against our server over real sockets: what a user of the two sees.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/event_loop.h"
#include "ttrpc/client.h"
#include "ttrpc/server.h"
#include "ttrpc/testing/echo_server.h"

namespace bothy::ttrpc {
namespace {

using bothy::testing::EchoClient;
using bothy::testing::EchoRequest;
using bothy::testing::EchoResponse;
using bothy::testing::EchoServer;
using google::protobuf::Empty;

class RoundTripTest : public ::testing::Test {
 protected:
  ~RoundTripTest() override {
    thread_.loop().PostAndWait([this] { server_.reset(); });
  }

  void StartServer(ServerOptions options = {}) {
    thread_.loop().PostAndWait([&] {
      auto server = Server::Create(thread_.loop(), std::move(options));
      ASSERT_TRUE(server.ok()) << server.status();
      server_ = *std::move(server);
      ASSERT_TRUE(server_->Register(service_).ok());
    });
  }

  // A socket whose other end the server serves.
  UniqueFd Socket() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    UniqueFd ours(fds[0]);
    UniqueFd theirs(fds[1]);
    thread_.loop().PostAndWait([&] { EXPECT_TRUE(server_->Adopt(std::move(theirs)).ok()); });
    return ours;
  }

  std::unique_ptr<Client> Connect() { return Client::Adopt(Socket()); }

  LoopThread thread_{"server"};
  EchoServer service_;
  std::unique_ptr<Server> server_;
};

TEST_F(RoundTripTest, AnswersACall) {
  StartServer();
  const auto connection = Connect();
  EchoClient client(*connection);
  EchoRequest request;
  request.set_text("hello");
  const auto response = client.Echo(request);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->text(), "hello");
}

}  // namespace
}  // namespace bothy::ttrpc
