// A tap's queue over a socket that, like a tap, keeps frames apart; the real thing is in
// tap_test.cc.
#include "net/tap/tap_queue.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "net/ethernet.h"
#include "support/io_loop.h"

namespace bothy::net {
namespace {

class TapQueueTest : public ::testing::TestWithParam<IoLoop::Engine> {
 protected:
  TapQueueTest() {
    auto loop = IoLoop::Create({.engine = GetParam()});
    EXPECT_TRUE(loop.ok()) << loop.status();
    loop_ = *std::move(loop);
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()), 0);
    far_.Reset(ends[1]);
    queue_ = std::make_unique<TapQueue>(UniqueFd(ends[0]), *loop_, counters_);
    queue_->SetCallbacks([this] { ++readable_; }, [this] { ++writable_; });
  }
  FrameQueue::Sent Send(size_t bytes) {
    std::string frame(kHeaderBytes + bytes, 'x');
    const std::array<iovec, 2> buffers = {iovec{frame.data(), 5},
                                          iovec{frame.data() + 5, frame.size() - 5}};
    return queue_->Send(buffers);
  }
  size_t Receive(size_t room) {
    std::string frame(room, ' ');
    const std::array<iovec, 2> buffers = {iovec{frame.data(), 5},
                                          iovec{frame.data() + 5, frame.size() - 5}};
    const auto bytes = queue_->Receive(buffers);
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    return bytes.value_or(0);
  }
  void Arrive(size_t bytes) {
    const std::string frame(bytes, 'y');
    ASSERT_EQ(::send(far_.get(), frame.data(), frame.size(), 0), static_cast<ssize_t>(bytes));
  }

  std::unique_ptr<IoLoop> loop_;
  FrameCounters counters_;
  UniqueFd far_;
  std::unique_ptr<TapQueue> queue_;
  int readable_ = 0;
  int writable_ = 0;
};

TEST_P(TapQueueTest, AFullOneSaysLaterAndThenThatItIsWorthAnotherTry) {
  uint64_t sent = 0;
  while (Send(1000) == FrameQueue::Sent::kYes) ++sent;
  EXPECT_EQ(Send(1000), FrameQueue::Sent::kLater);
  EXPECT_EQ(counters_.sent_frames(), sent);
  EXPECT_EQ(writable_, 0) << "called inside the call";
  std::string frame(2000, ' ');
  for (uint64_t i = 0; i < sent; ++i) {
    ASSERT_EQ(::recv(far_.get(), frame.data(), frame.size(), 0),
              static_cast<ssize_t>(kHeaderBytes + 1000));
  }
  loop_->RunUntil([this] { return writable_ != 0; });
  EXPECT_EQ(Send(1000), FrameQueue::Sent::kYes);
  EXPECT_EQ(writable_, 1);
  EXPECT_EQ(readable_, 0);
}

TEST_P(TapQueueTest, RuntsAndWhatIsTooLongAreDroppedAndCounted) {
  Arrive(kHeaderBytes + kEthernetHeaderBytes - 1);
  Arrive(201);
  Arrive(200);
  EXPECT_EQ(Receive(200), 200U);
  EXPECT_EQ(Receive(200), 0U);
  EXPECT_EQ(counters_.receive_drops(Drop::kRunt), 1U);
  EXPECT_EQ(counters_.receive_drops(Drop::kSmallBuffers), 1U);
  EXPECT_EQ(counters_.received_frames(), 1U);
}

TEST_P(TapQueueTest, AFloodOfWhatIsDroppedLeavesOthersTheirTurn) {
  // As many as the socket takes at a time, three times over.
  for (int i = 0; i < 3; ++i) {
    int arrived = 0;
    std::string runt(5, 'r');
    while (::send(far_.get(), runt.data(), runt.size(), 0) > 0) ++arrived;
    ASSERT_GT(arrived, 0);
    const uint64_t before = counters_.receive_drops(Drop::kRunt);
    EXPECT_EQ(Receive(200), 0U);
    while (counters_.receive_drops(Drop::kRunt) < before + static_cast<uint64_t>(arrived)) {
      const int calls = readable_;
      loop_->RunUntil([&] { return readable_ != calls; });
      EXPECT_EQ(Receive(200), 0U);
    }
  }
}

TEST_P(TapQueueTest, OneThatIsNotInUseHasNothingAndTakesNothing) {
  queue_->SetInUse(false);
  Arrive(100);
  EXPECT_EQ(Receive(200), 0U);
  EXPECT_EQ(Send(100), FrameQueue::Sent::kDropped);
  EXPECT_EQ(counters_.send_drops(Drop::kLinkDown), 1U);
  queue_->SetInUse(true);
  loop_->RunUntil([this] { return readable_ == 1; });
  EXPECT_EQ(Receive(200), 100U);
}

INSTANTIATE_TEST_SUITE_P(Engines, TapQueueTest,
                         ::testing::Values(IoLoop::Engine::kUring, IoLoop::Engine::kThreadPool),
                         [](const auto& engine) {
                           return engine.param == IoLoop::Engine::kUring ? "Uring" : "ThreadPool";
                         });

}  // namespace
}  // namespace bothy::net
