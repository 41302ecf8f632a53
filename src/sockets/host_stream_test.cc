#include "sockets/host_stream.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <string>
#include <string_view>

namespace bothy::sockets {
namespace {

using What = HostStream::ReadResult::What;

class HostStreamTest : public ::testing::TestWithParam<IoLoop::Engine> {
 protected:
  HostStreamTest() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    peer_.Reset(ends[1]);
    stream_ =
        std::make_unique<HostStream>(UniqueFd(ends[0]), *loop_,
                                     HostStream::Callbacks{.on_readable = [this] { ++readable_; },
                                                           .on_written = [this] { ++written_; }});
  }
  void Write(std::string_view text) {
    const std::array<iovec, 1> bytes = {
        {{.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()}}};
    stream_->Write(bytes);
  }
  HostStream::ReadResult Read() {
    const std::array<iovec, 2> into = {
        {{.iov_base = text_.data(), .iov_len = 2},
         {.iov_base = text_.data() + 2, .iov_len = text_.size() - 2}}};
    return stream_->Read(into);
  }
  // What has come at the peer's, and whether the end has.
  bool Receive() {
    std::array<char, 65536> bytes{};
    while (true) {
      const ssize_t result = ::recv(peer_.get(), bytes.data(), bytes.size(), 0);
      if (result == 0) return true;
      if (result < 0) return false;
      received_.append(bytes.data(), static_cast<size_t>(result));
    }
  }

  std::unique_ptr<IoLoop> loop_ = *IoLoop::Create({.engine = GetParam(), .pool_threads = 1});
  UniqueFd peer_;
  std::unique_ptr<HostStream> stream_;
  int readable_ = 0;
  int written_ = 0;
  std::array<char, 64> text_{};
  std::string received_;
};

TEST_P(HostStreamTest, SendsAtOnceWhatTheSocketTakes) {
  Write("hello");
  EXPECT_EQ(stream_->written(), 5U);
  EXPECT_EQ(stream_->kept(), 0U);
  Receive();
  EXPECT_EQ(received_, "hello");
}

TEST_P(HostStreamTest, KeepsTheRestAndThenEnds) {
  std::string all;
  for (int i = 0; stream_->kept() < 100'000; ++i) {
    const std::string piece(10'000, static_cast<char>('a' + i % 26));
    all += piece;
    Write(piece);
  }
  stream_->EndWriting();
  bool ended = false;
  loop_->RunUntil([&] { return ended = Receive(); });
  EXPECT_TRUE(ended);
  EXPECT_EQ(received_, all);
  EXPECT_EQ(stream_->written(), all.size());
  EXPECT_EQ(stream_->kept(), 0U);
  EXPECT_GT(written_, 0);
}

TEST_P(HostStreamTest, ReadsIntoTheBuffersGiven) {
  EXPECT_EQ(Read().what, What::kNothing);
  stream_->AwaitReadable();
  ASSERT_EQ(::send(peer_.get(), "12345", 5, 0), 5);
  loop_->RunUntil([this] { return readable_ == 1; });
  const auto result = Read();
  EXPECT_EQ(result.what, What::kBytes);
  EXPECT_EQ(std::string_view(text_.data(), result.bytes), "12345");
}

TEST_P(HostStreamTest, TellsAHalfCloseFromAClose) {
  ASSERT_EQ(::shutdown(peer_.get(), SHUT_WR), 0);
  EXPECT_EQ(Read().what, What::kEnd);
  EXPECT_FALSE(stream_->PeerHasClosed());
  Write("still read");
  Receive();
  EXPECT_EQ(received_, "still read");
  peer_.Reset();
  EXPECT_TRUE(stream_->PeerHasClosed());
  Write("x");
  EXPECT_TRUE(stream_->broken());
}

TEST_P(HostStreamTest, SaysWhenThePeerGoesWithBytesKept) {
  while (stream_->kept() == 0) Write(std::string(50'000, 'x'));
  peer_.Reset();
  loop_->RunUntil([this] { return written_ != 0; });
  EXPECT_TRUE(stream_->broken());
  EXPECT_EQ(stream_->kept(), 0U);
  EXPECT_EQ(Read().what, What::kBroken);  // it had bytes unread
}

TEST_P(HostStreamTest, EndReadingIsThePeersError) {
  stream_->EndReading();
  EXPECT_LT(::send(peer_.get(), "x", 1, MSG_NOSIGNAL), 0);
  EXPECT_EQ(errno, EPIPE);
}

TEST_P(HostStreamTest, MayEndInItsCallback) {
  stream_->SetCallbacks({.on_readable = [this] { stream_.reset(); }, .on_written = {}});
  stream_->AwaitReadable();
  ASSERT_EQ(::send(peer_.get(), "x", 1, 0), 1);
  loop_->RunUntil([this] { return stream_ == nullptr; });
}

INSTANTIATE_TEST_SUITE_P(Engines, HostStreamTest,
                         ::testing::Values(IoLoop::Engine::kAuto, IoLoop::Engine::kThreadPool));

}  // namespace
}  // namespace bothy::sockets
