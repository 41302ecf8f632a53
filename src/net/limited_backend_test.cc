#include "net/limited_backend.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "support/io_loop.h"

namespace bothy::net {
namespace {

constexpr uint64_t kMs = 1'000'000;

// Takes everything, and always has another frame of so many bytes.
class EndlessQueue final : public FrameQueue {
 public:
  Sent Send(std::span<const iovec> /*frame*/) override {
    ++sent;
    return Sent::kYes;
  }
  absl::StatusOr<size_t> Receive(std::span<const iovec> /*into*/) override {
    ++received;
    return kHeaderBytes + bytes;
  }
  void SetCallbacks(std::function<void()> on_readable, std::function<void()> on_writable) override {
    readable = std::move(on_readable);
    writable = std::move(on_writable);
  }
  [[nodiscard]] int tap_fd() const override { return 17; }

  size_t bytes = 1000;
  int sent = 0;
  int received = 0;
  std::function<void()> readable;
  std::function<void()> writable;
};

class EndlessBackend final : public Backend {
 public:
  [[nodiscard]] uint16_t queue_pairs() const override { return 2; }
  [[nodiscard]] FrameQueue& queue(uint16_t pair) override { return queues.at(pair); }
  absl::Status UseQueuePairs(uint16_t pairs) override {
    in_use = pairs;
    return absl::OkStatus();
  }
  [[nodiscard]] Offloads offloads() const override { return {.checksum = true}; }
  absl::Status SetReceiveOffloads(const Offloads& /*offloads*/) override {
    return absl::UnimplementedError("none");
  }
  [[nodiscard]] uint16_t mtu() const override { return 4321; }
  [[nodiscard]] bool link_up() const override { return true; }
  void SetLinkCallback(std::function<void()> on_change) override { link = std::move(on_change); }
  [[nodiscard]] std::string description() const override { return "endless"; }
  void Inspect(inspect::Node& node) const override { node.Value("endless", true); }

  std::array<EndlessQueue, 2> queues;
  uint16_t in_use = 0;
  std::function<void()> link;
};

class LimitedBackendTest : public ::testing::TestWithParam<IoLoop::Engine> {
 protected:
  LimitedBackendTest() {
    auto loop = IoLoop::Create({.engine = GetParam()});
    EXPECT_TRUE(loop.ok()) << loop.status();
    loop_ = *std::move(loop);
  }
  void Open(const RateLimits& limits) {
    auto endless = std::make_unique<EndlessBackend>();
    endless_ = endless.get();
    auto limited = LimitBackend(std::move(endless), limits, *loop_, [this] { return now_; });
    ASSERT_TRUE(limited.ok()) << limited.status();
    backend_ = *std::move(limited);
  }
  FrameQueue::Sent Send(uint16_t queue, size_t bytes = 1000) {
    std::vector<uint8_t> frame(kHeaderBytes + bytes);
    const std::array<iovec, 2> buffers = {iovec{frame.data(), 100},
                                          iovec{frame.data() + 100, frame.size() - 100}};
    return backend_->queue(queue).Send(buffers);
  }
  size_t Receive(uint16_t queue) {
    std::vector<uint8_t> frame(kHeaderBytes + 1000);
    const iovec buffer = {frame.data(), frame.size()};
    const auto bytes = backend_->queue(queue).Receive(std::span(&buffer, 1));
    EXPECT_TRUE(bytes.ok());
    return bytes.value_or(0);
  }

  std::unique_ptr<IoLoop> loop_;
  uint64_t now_ = 1;
  EndlessBackend* endless_ = nullptr;
  std::unique_ptr<Backend> backend_;
};

TEST_P(LimitedBackendTest, HoldsBackWhatExceedsTheRateOverAllQueues) {
  // A megabyte a second: a frame a millisecond.
  Open({.receive_bps = 0, .send_bps = 8'000'000});
  std::array<int, 2> resumed{};
  for (uint16_t i = 0; i < 2; ++i) {
    backend_->queue(i).SetCallbacks(nullptr, [&resumed, i] { ++resumed[i]; });
  }
  int burst = 0;
  while (Send(burst % 2) == FrameQueue::Sent::kYes) ++burst;
  EXPECT_EQ(burst, RateLimit::kLeastBurstBytes / 1000 + 1);
  EXPECT_EQ(endless_->queues[0].sent + endless_->queues[1].sent, burst);
  EXPECT_EQ(Send(0), FrameQueue::Sent::kLater);
  EXPECT_EQ(Send(1), FrameQueue::Sent::kLater);
  EXPECT_EQ(resumed[0] + resumed[1], 0) << "called inside the call";
  // Receiving isn't limited.
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(Receive(0), kHeaderBytes + 1000);
  // The frame's time has come; both are told, and one is quicker.
  now_ += kMs;
  loop_->RunUntil([&resumed] { return resumed[0] != 0 && resumed[1] != 0; });
  EXPECT_EQ(Send(1), FrameQueue::Sent::kYes);
  EXPECT_EQ(Send(0), FrameQueue::Sent::kLater);
  EXPECT_EQ(resumed, (std::array<int, 2>{1, 1}));
}

TEST_P(LimitedBackendTest, QueuesThatAlwaysHaveFramesShare) {
  Open({.receive_bps = 0, .send_bps = 8'000'000});
  std::array<int, 2> sent{};
  for (uint16_t i = 0; i < 2; ++i) {
    backend_->queue(i).SetCallbacks(nullptr, [this, &sent, i] {
      while (Send(i) == FrameQueue::Sent::kYes) ++sent[i];
    });
  }
  while (Send(0) == FrameQueue::Sent::kYes) {
  }
  EXPECT_EQ(Send(1), FrameQueue::Sent::kLater);
  for (int i = 1; i <= 100; ++i) {
    now_ += kMs;
    loop_->RunUntil([&] { return sent[0] + sent[1] >= i; });
    // One that comes while others wait is behind them.
    EXPECT_EQ(Send(static_cast<uint16_t>(i % 2)), FrameQueue::Sent::kLater);
  }
  EXPECT_EQ(sent[0] + sent[1], 100);
  EXPECT_EQ(sent[0], sent[1]);
}

TEST_P(LimitedBackendTest, LeavesInTheBackendWhatMayNotComeYet) {
  Open({.receive_bps = 8'000'000, .send_bps = 0});
  int resumed = 0;
  backend_->queue(0).SetCallbacks([&resumed] { ++resumed; }, nullptr);
  int burst = 0;
  while (Receive(0) != 0) ++burst;
  EXPECT_EQ(endless_->queues[0].received, burst) << "none was taken and lost";
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(Send(0), FrameQueue::Sent::kYes);
  for (int i = 1; i <= 3; ++i) {
    now_ += kMs;
    loop_->RunUntil([&] { return resumed == i; });
    EXPECT_EQ(Receive(0), kHeaderBytes + 1000);
    EXPECT_EQ(Receive(0), 0U);
  }
  // What the backend itself has to say gets through.
  endless_->queues[0].readable();
  EXPECT_EQ(resumed, 4);
}

TEST_P(LimitedBackendTest, IsTheBackendOtherwise) {
  Open({.receive_bps = 1, .send_bps = 1});
  EXPECT_EQ(backend_->queue_pairs(), 2);
  EXPECT_EQ(backend_->mtu(), 4321);
  EXPECT_EQ(backend_->description(), "endless");
  EXPECT_EQ(backend_->offloads(), Offloads{.checksum = true});
  EXPECT_TRUE(absl::IsUnimplemented(backend_->SetReceiveOffloads({})));
  EXPECT_TRUE(backend_->UseQueuePairs(2).ok());
  EXPECT_EQ(endless_->in_use, 2);
  EXPECT_EQ(backend_->queue(0).tap_fd(), -1) << "the kernel's path knows no limits";
  bool called = false;
  backend_->SetLinkCallback([&called] { called = true; });
  endless_->link();
  EXPECT_TRUE(called);
}

INSTANTIATE_TEST_SUITE_P(Engines, LimitedBackendTest,
                         ::testing::Values(IoLoop::Engine::kUring, IoLoop::Engine::kThreadPool),
                         [](const auto& engine) {
                           return engine.param == IoLoop::Engine::kUring ? "Uring" : "ThreadPool";
                         });

}  // namespace
}  // namespace bothy::net
