// The server against peers that misbehave, at the level of sockets.
#include "ttrpc/server.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/testing/test_folder.h"
#include "ttrpc/testing/frames.h"
#include "ttrpc/testing/server_fixture.h"
#include "ttrpc/unix_socket.h"

namespace bothy::ttrpc {
namespace {

using bothy::testing::EchoClient;
using bothy::testing::EchoRequest;
using bothy::testing::EchoResponse;
using bothy::testing::FillRequest;
using bothy::testing::Frame;
using bothy::testing::RawPeer;
using bothy::testing::RequestFrame;
using std::chrono::milliseconds;
using std::chrono::seconds;

class ServerTest : public bothy::testing::ServerFixture {
 protected:
  // That others are served as if nothing had happened.
  void ExpectServes() {
    const auto connection = Connect();
    EchoRequest request;
    request.set_text("anyone?");
    const auto response = EchoClient(*connection).Echo(request);
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->text(), "anyone?");
  }
  size_t Connections() {
    size_t connections = 0;
    OnLoop([&] { connections = server_->connections(); });
    return connections;
  }
};

TEST_F(ServerTest, OptionsAreChecked) {
  EXPECT_FALSE(Server::Create(thread_.loop(), {.max_message = 0}).ok());
  EXPECT_FALSE(Server::Create(thread_.loop(), {.max_message = kMaxMessage + 1}).ok());
}

TEST_F(ServerTest, AServiceIsRegisteredOnce) {
  StartServer();
  OnLoop([&] { EXPECT_EQ(server_->Register(service_).code(), absl::StatusCode::kAlreadyExists); });
}

TEST_F(ServerTest, ListensOnListeningSocketsOnly) {
  StartServer();
  OnLoop([&] {
    EXPECT_EQ(server_->Listen(UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))).code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_FALSE(server_->Listen(UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC))).ok());
  });
}

TEST_F(ServerTest, GarbageClosesItsOwnConnectionOnly) {
  StartServer();
  std::mt19937 random(7);
  for (const std::string& garbage :
       {std::string("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), std::string(100, '\xff'),
        std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11)}) {
    RawPeer peer(Socket());
    peer.Send(garbage);
    EXPECT_EQ(peer.Receive(), std::nullopt);
    ExpectServes();
  }
  for (int i = 0; i < 50; ++i) {
    RawPeer peer(Socket());
    std::string garbage(random() % 2000, '\0');
    for (char& byte : garbage) byte = static_cast<char>(random());
    peer.Send(garbage);
    peer.CloseWriting();
    while (peer.Receive()) {
    }
  }
  ExpectServes();
  WaitUntilOnLoop([&] { return server_->connections() == 0; });
}

TEST_F(ServerTest, AFrameCutByTheEndOfItsConnectionIsForgotten) {
  StartServer();
  const std::string frame = RequestFrame(1, "Echo", "");
  for (size_t size = 0; size < frame.size(); ++size) {
    RawPeer peer(Socket());
    EXPECT_TRUE(peer.Send(frame.substr(0, size)));
    peer.CloseWriting();
    EXPECT_EQ(peer.Receive(), std::nullopt);
  }
  ExpectServes();
}

TEST_F(ServerTest, AConnectionThatStopsInTheMiddleOfAFrameDelaysNobody) {
  StartServer();
  RawPeer peer(Socket());
  EXPECT_TRUE(peer.Send(RequestFrame(1, "Echo", "").substr(0, 15)));
  ExpectServes();
  EXPECT_TRUE(peer.Send(RequestFrame(1, "Echo", "").substr(15)));
  EXPECT_TRUE(peer.ReceiveStatus().ok());
}

TEST_F(ServerTest, AClientThatStopsSendingGetsWhatWasAnsweredAndLosesTheRest) {
  StartServer();
  RawPeer peer(Socket());
  EXPECT_TRUE(peer.Send(RequestFrame(1, "Wait", "") + RequestFrame(3, "Echo", "")));
  peer.CloseWriting();
  uint32_t id = 0;
  EXPECT_TRUE(peer.ReceiveStatus(&id).ok());
  EXPECT_EQ(id, 3u);
  EXPECT_EQ(peer.Receive(), std::nullopt);
  OnLoop([&] { EXPECT_EQ(service_.cancelled(), 1); });
}

TEST_F(ServerTest, AnOverlongRequestCostsOnlyItself) {
  StartServer();
  RawPeer peer(Socket());
  EXPECT_TRUE(peer.Send(
      Frame({.stream_id = 1, .type = kFrameRequest}, std::string(size_t{kMaxMessage} + 1, 'x'))));
  EXPECT_EQ(peer.ReceiveStatus().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(peer.Send(RequestFrame(3, "Echo", "")));
  EXPECT_TRUE(peer.ReceiveStatus().ok());
}

TEST_F(ServerTest, AClientThatDoesNotReadIsNotReadFromAndCatchesUpLater) {
  StartServer({.max_write_backlog_bytes = 64 << 10});
  RawPeer peer(Socket());
  FillRequest fill;
  fill.set_size(10000);
  // Far more than the socket buffers and the server take: sending blocks until the client reads.
  constexpr uint32_t kCalls = 20000;
  std::atomic<uint32_t> sent = 0;
  std::thread sender([&] {
    for (uint32_t i = 0; i < kCalls; ++i) {
      if (!peer.Send(RequestFrame(2 * i + 1, "Fill", fill.SerializeAsString()))) break;
      ++sent;
    }
  });
  // The sender has come to a halt when the socket has had no room over many rounds of the loop.
  for (int full = 0; full < 200;) {
    ExpectServes();
    pollfd writable{.fd = peer.fd(), .events = POLLOUT, .revents = 0};
    full = ::poll(&writable, 1, 0) == 0 ? full + 1 : 0;
  }
  EXPECT_LT(sent, kCalls);
  for (uint32_t i = 0; i < kCalls; ++i) {
    uint32_t id = 0;
    ASSERT_TRUE(peer.ReceiveStatus(&id).ok());
    ASSERT_EQ(id, 2 * i + 1);
  }
  sender.join();
  EXPECT_EQ(sent, kCalls);
}

TEST_F(ServerTest, AClientThatNeverReadsCanBeGotRidOf) {
  StartServer({.max_write_backlog_bytes = 1000});
  RawPeer peer(Socket());
  FillRequest fill;
  fill.set_size(1 << 20);
  for (uint32_t i = 0; i < 10; ++i) {
    EXPECT_TRUE(peer.Send(RequestFrame(2 * i + 1, "Fill", fill.SerializeAsString())));
  }
  EXPECT_EQ(Connections(), 1u);
  peer.Close();
  WaitUntilOnLoop([&] { return server_->connections() == 0; });
}

TEST_F(ServerTest, ARefusedPeerHearsWhy) {
  PeerCredentials seen;
  StartServer({.authorize = [&](const PeerCredentials& peer) {
    seen = peer;
    return absl::PermissionDeniedError("not you");
  }});
  const auto connection = Connect();
  EXPECT_EQ(EchoClient(*connection).Echo({}).status(), absl::PermissionDeniedError("not you"));
  EXPECT_EQ(EchoClient(*connection).Echo({}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(seen.uid, ::getuid());
  EXPECT_EQ(seen.gid, ::getgid());
  EXPECT_EQ(seen.pid, ::getpid());
  WaitUntilOnLoop([&] { return server_->connections() == 0; });
}

TEST_F(ServerTest, ARefusedPeerThatSaysNothingIsClosed) {
  StartServer(
      {.authorize = [](const PeerCredentials&) { return absl::PermissionDeniedError("no"); },
       .refusal_timeout = milliseconds(1)});
  RawPeer peer(Socket());
  EXPECT_EQ(peer.Receive(), std::nullopt);
}

TEST_F(ServerTest, ACallKnowsItsPeer) {
  StartServer();
  const auto connection = Connect();
  ASSERT_TRUE(EchoClient(*connection).Echo({}).ok());
  OnLoop([&] { EXPECT_EQ(service_.last_call()->peer().pid, ::getpid()); });
}

class ListeningServerTest : public ServerTest {
 protected:
  void Listen() {
    OnLoop([&] {
      auto bound = ListenUnix(path_);
      ASSERT_TRUE(bound.ok()) << bound.status();
      file_ = std::move(bound->file);
      ASSERT_TRUE(server_->Listen(std::move(bound->fd)).ok());
    });
  }

  const TestFolder folder_;
  const std::string path_ = folder_ / "vm.sock";
  SocketFile file_;
};

TEST_F(ListeningServerTest, ServesManyConnectionsAtOnce) {
  StartServer();
  Listen();
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 300; ++i) {
    auto client = Client::Connect(path_);
    ASSERT_TRUE(client.ok()) << client.status();
    clients.push_back(*std::move(client));
  }
  for (const auto& client : clients) EXPECT_TRUE(EchoClient(*client).Echo({}).ok());
  EXPECT_EQ(Connections(), 300u);
  clients.clear();
  WaitUntilOnLoop([&] { return server_->connections() == 0; });
}

TEST_F(ListeningServerTest, ClosesConnectionsOverTheLimit) {
  StartServer({.max_connections = 2});
  Listen();
  const auto first = Client::Connect(path_);
  const auto second = Client::Connect(path_);
  ASSERT_TRUE(EchoClient(**first).Echo({}).ok());
  ASSERT_TRUE(EchoClient(**second).Echo({}).ok());
  const auto third = Client::Connect(path_);
  ASSERT_TRUE(third.ok());
  EXPECT_EQ(EchoClient(**third).Echo({}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(EchoClient(**first).Echo({}).ok());
}

TEST_F(ListeningServerTest, RunningOutOfDescriptorsDelaysNewConnectionsOnly) {
  StartServer();
  Listen();
  const auto first = Client::Connect(path_);
  ASSERT_TRUE(EchoClient(**first).Echo({}).ok());

  UniqueFd late(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, path_.c_str());
  rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const UniqueFd highest(::dup(0));  // all below it are taken, and it is, too
  const rlimit none{.rlim_cur = static_cast<rlim_t>(highest.get()), .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  EXPECT_EQ(::connect(late.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  absl::Status meanwhile;
  for (int i = 0; i < 100; ++i) meanwhile.Update(EchoClient(**first).Echo({}).status());
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(meanwhile.ok()) << meanwhile;

  RawPeer peer(std::move(late));
  EXPECT_TRUE(peer.Send(RequestFrame(1, "Echo", "")));
  EXPECT_TRUE(peer.ReceiveStatus().ok());
}

TEST_F(ListeningServerTest, StopAcceptingLeavesConnectionsAlone) {
  StartServer();
  Listen();
  const auto client = Client::Connect(path_);
  ASSERT_TRUE(EchoClient(**client).Echo({}).ok());
  OnLoop([&] { server_->StopAccepting(); });
  EXPECT_EQ(Client::Connect(path_).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(EchoClient(**client).Echo({}).ok());
}

// A service whose one call ends the server, as Quit does.
class QuittingService : public bothy::testing::EchoService {
 public:
  explicit QuittingService(std::function<void()> quit) : quit_(std::move(quit)) {}
  void Echo(std::shared_ptr<ServerCall>, EchoRequest request, Reply<EchoResponse> reply) override {
    EchoResponse response;
    response.mutable_payload()->assign(1 << 20, 'x');
    response.set_text(request.text());
    reply(response);
    quit_();
  }

 private:
  const std::function<void()> quit_;
};

TEST_F(ServerTest, CloseWhenFlushedSendsTheAnswerOfTheCallThatAskedForIt) {
  std::promise<void> closed;
  QuittingService service(
      [&] { server_->CloseWhenFlushed(seconds(60), [&] { closed.set_value(); }); });
  OnLoop([&] {
    server_ = *Server::Create(thread_.loop(), {});
    ASSERT_TRUE(server_->Register(service).ok());
  });
  const auto connection = Connect();
  const auto bystander = Connect();
  EchoRequest request;
  request.set_text("bye");
  const auto response = EchoClient(*connection).Echo(request);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->text(), "bye");
  closed.get_future().wait();
  EXPECT_EQ(EchoClient(*bystander).Echo({}).status().code(), absl::StatusCode::kUnavailable);
  StopServer();
}

TEST_F(ServerTest, CloseWhenFlushedIncludesAnswersOfOtherThreads) {
  StartServer();
  const auto connection = Connect();
  std::promise<absl::StatusOr<EchoResponse>> answer;
  EchoClient(*connection).WaitAsync({}, {}, [&](absl::StatusOr<EchoResponse> response) {
    answer.set_value(std::move(response));
  });
  WaitUntilOnLoop([&] { return service_.waiting() == 1; });
  std::promise<void> closed;
  OnLoop([&] {
    std::thread([reply = service_.TakeWaiting()]() mutable { reply(EchoResponse()); }).join();
    server_->CloseWhenFlushed(seconds(60), [&] { closed.set_value(); });
  });
  closed.get_future().wait();
  EXPECT_TRUE(answer.get_future().get().ok());
}

TEST_F(ServerTest, CloseWhenFlushedDoesNotWaitForEverForAClientThatDoesNotRead) {
  StartServer();
  RawPeer peer(Socket());
  FillRequest fill;
  fill.set_size(4000000);
  EXPECT_TRUE(peer.Send(RequestFrame(1, "Fill", fill.SerializeAsString())));
  EXPECT_TRUE(peer.Send(RequestFrame(3, "Wait", "")));
  std::promise<void> closed;
  OnLoop([&] { server_->CloseWhenFlushed(milliseconds(1), [&] { closed.set_value(); }); });
  closed.get_future().wait();
  EXPECT_EQ(Connections(), 0u);
}

TEST_F(ServerTest, CloseWhenFlushedWithoutConnectionsIsDoneAtOnce) {
  StartServer();
  std::promise<void> closed;
  OnLoop([&] { server_->CloseWhenFlushed(seconds(60), [&] { closed.set_value(); }); });
  closed.get_future().wait();
}

TEST_F(ServerTest, ShutdownInsideAMethodIsFine) {
  QuittingService service([&] { server_->Shutdown(); });
  OnLoop([&] {
    server_ = *Server::Create(thread_.loop(), {});
    ASSERT_TRUE(server_->Register(service).ok());
  });
  const auto connection = Connect();
  EXPECT_EQ(EchoClient(*connection).Echo({}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Connections(), 0u);
  StopServer();
}

TEST_F(ServerTest, CancellationMayShutTheServerDown) {
  StartServer();
  RawPeer peer(Socket());
  const auto other = Connect();
  EXPECT_TRUE(peer.Send(RequestFrame(1, "Wait", "")));
  WaitUntilOnLoop([&] { return service_.waiting() == 1; });
  OnLoop([&] { service_.last_call()->OnCancel([&] { server_->Shutdown(); }); });
  peer.Close();
  WaitUntilOnLoop([&] { return server_->connections() == 0; });
}

TEST_F(ServerTest, ManyThreadsMayAnswerWhileClientsComeAndGo) {
  StartServer();
  std::atomic<bool> stop = false;
  std::vector<std::thread> workers;
  workers.reserve(3);
  for (int i = 0; i < 3; ++i) {
    workers.emplace_back([&] {
      while (!stop) {
        std::optional<Reply<EchoResponse>> reply;
        OnLoop([&] {
          if (service_.waiting() > 0) reply.emplace(service_.TakeWaiting());
        });
        if (reply) (*reply)(EchoResponse());
      }
    });
  }
  for (int round = 0; round < 50; ++round) {
    auto connection = Connect();
    EchoClient client(*connection);
    for (int i = 0; i < 10; ++i) {
      client.WaitAsync({}, {.timeout = seconds(60)}, [](const absl::StatusOr<EchoResponse>&) {});
    }
    EXPECT_TRUE(client.Echo({}).ok());
    if (round % 2 == 0) {
      EXPECT_TRUE(client.Wait({}).ok());
    }
  }
  stop = true;
  for (auto& worker : workers) worker.join();
}

}  // namespace
}  // namespace bothy::ttrpc
