#include "sockets/connect_listener.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <string_view>
#include <utility>
#include <vector>

#include "support/check.h"
#include "support/testing/test_folder.h"

namespace bothy::sockets {
namespace {

class ConnectListenerTest : public ::testing::TestWithParam<IoLoop::Engine> {
 protected:
  struct Wanted {
    uint32_t port;
    UniqueFd socket;
  };
  ConnectListenerTest() {
    auto listener = ConnectListener::Create(path_, *loop_, [this](uint32_t port, UniqueFd socket) {
      wanted_.push_back({port, std::move(socket)});
    });
    CHECK_OK(listener.status());
    listener_ = *std::move(listener);
  }
  UniqueFd Client() { return *ConnectUnix(path_, ConnectMode::kBlocking); }
  static void Say(const UniqueFd& client, std::string_view text) {
    ASSERT_EQ(::send(client.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  void AwaitWanted(size_t count) {
    loop_->RunUntil([&] { return wanted_.size() == count; });
  }
  // The other end has closed.
  void AwaitEnd(const UniqueFd& client) {
    loop_->RunUntil([&] {
      char byte = 0;
      return ::recv(client.get(), &byte, 1, MSG_DONTWAIT) == 0 || errno == ECONNRESET;
    });
  }

  TestFolder folder_;
  const std::string path_ = folder_ / "vsock";
  std::unique_ptr<IoLoop> loop_ = *IoLoop::Create({.engine = GetParam(), .pool_threads = 1});
  std::vector<Wanted> wanted_;
  std::unique_ptr<ConnectListener> listener_;
};

TEST_P(ConnectListenerTest, HandsOverWhoSaysWhichPort) {
  const UniqueFd client = Client();
  Say(client, "CONNECT 52\nhello");
  AwaitWanted(1);
  EXPECT_EQ(wanted_[0].port, 52U);
  char text[16] = {};
  EXPECT_EQ(::recv(wanted_[0].socket.get(), text, sizeof text, 0), 5);
  EXPECT_EQ(std::string_view(text), "hello");
}

TEST_P(ConnectListenerTest, TakesALineInPieces) {
  const UniqueFd slow = Client();
  for (const char piece : std::string_view("CONNECT 10")) {
    Say(slow, std::string_view(&piece, 1));
    // Another one isn't kept waiting, and shows that the piece has been seen.
    const UniqueFd other = Client();
    Say(other, "CONNECT 1\n");
    AwaitWanted(wanted_.size() + 1);
  }
  const size_t before = wanted_.size();
  Say(slow, "24\nx");
  AwaitWanted(before + 1);
  EXPECT_EQ(wanted_.back().port, 1024U);
  char byte = 0;
  EXPECT_EQ(::recv(wanted_.back().socket.get(), &byte, 1, 0), 1);
  EXPECT_EQ(byte, 'x');
}

TEST_P(ConnectListenerTest, ClosesWhoSaysSomethingElse) {
  const UniqueFd client = Client();
  Say(client, "GET / HTTP/1.1\r\n\r\n");
  AwaitEnd(client);
  EXPECT_TRUE(wanted_.empty());
}

TEST_P(ConnectListenerTest, ForgetsWhoLeavesBeforeTheNewline) {
  {
    const UniqueFd client = Client();
    Say(client, "CONNECT 5");
  }
  const UniqueFd next = Client();
  Say(next, "CONNECT 6\n");
  AwaitWanted(1);
  EXPECT_EQ(wanted_[0].port, 6U);
}

TEST_P(ConnectListenerTest, RemovesItsPath) {
  listener_.reset();
  EXPECT_EQ(ConnectUnix(path_, ConnectMode::kBlocking).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_P(ConnectListenerTest, SaysThatSomebodyListensThere) {
  EXPECT_EQ(ConnectListener::Create(path_, *loop_, nullptr).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

INSTANTIATE_TEST_SUITE_P(Engines, ConnectListenerTest,
                         ::testing::Values(IoLoop::Engine::kAuto, IoLoop::Engine::kThreadPool));

}  // namespace
}  // namespace bothy::sockets
