#include "net/limited_backend.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "net/loop_alarm.h"

namespace bothy::net {
namespace {

// Not quite for ever: a timer takes no longer deadlines.
constexpr uint64_t kLongestWaitNs = uint64_t{3600} * 1'000'000'000;

size_t FrameBytes(std::span<const iovec> frame) {
  size_t total = 0;
  for (const iovec& buffer : frame) total += buffer.iov_len;
  return total > kHeaderBytes ? total - kHeaderBytes : 0;
}

// One direction: its limit, and who waits for it.
class Direction {
 public:
  Direction(uint64_t bits_per_second, RateLimit::Clock clock)
      : limit_(bits_per_second, std::move(clock)) {}
  absl::Status Initialize(IoLoop& loop) {
    if (limit_.unlimited()) return absl::OkStatus();
    ASSIGN_OR_RETURN(alarm_, LoopAlarm::Create(loop, [this] { OnAlarm(); }));
    return absl::OkStatus();
  }

  // Whether a frame may pass; else `waiter` is set, and its function called when it is its turn:
  // those who wait come one after another, and before those who didn't have to, so that a queue
  // that always has frames starves no other.
  struct Waiter {
    bool waiting = false;
    std::function<void()> resume;
  };
  bool MayPass(Waiter& waiter) {
    if (limit_.Ready() && (waiters_.empty() || turn_ == &waiter)) return true;
    if (!std::exchange(waiter.waiting, true)) {
      waiters_.push_back(&waiter);
      held_back_.fetch_add(1, std::memory_order_relaxed);
    }
    SetAlarm();
    return false;
  }
  void Spend(size_t bytes) { limit_.Spend(bytes); }

  void Inspect(inspect::Node& node) const {
    node.Value("bits_per_second", limit_.bits_per_second());
    node.Value("held_back", held_back_.load(std::memory_order_relaxed));
  }

 private:
  void SetAlarm() {
    alarm_->SetNoLaterThan(MonotonicNs() + std::min(limit_.WaitNs(), kLongestWaitNs));
  }
  void OnAlarm() {
    while (!waiters_.empty()) {
      if (!limit_.Ready()) return SetAlarm();
      turn_ = waiters_.front();
      waiters_.pop_front();
      turn_->waiting = false;
      if (turn_->resume) turn_->resume();
      turn_ = nullptr;
    }
  }

  RateLimit limit_;
  std::unique_ptr<LoopAlarm> alarm_;
  std::deque<Waiter*> waiters_;
  Waiter* turn_ = nullptr;  // inside OnAlarm
  std::atomic<uint64_t> held_back_ = 0;
};

class LimitedQueue final : public FrameQueue {
 public:
  LimitedQueue(FrameQueue& queue, Direction& send, Direction& receive)
      : queue_(queue), send_(send), receive_(receive) {}

  Sent Send(std::span<const iovec> frame) override {
    if (!send_.MayPass(send_waiter_)) return Sent::kLater;
    const Sent sent = queue_.Send(frame);
    if (sent == Sent::kYes) send_.Spend(FrameBytes(frame));
    return sent;
  }
  absl::StatusOr<size_t> Receive(std::span<const iovec> into) override {
    if (!receive_.MayPass(receive_waiter_)) return 0;
    absl::StatusOr<size_t> bytes = queue_.Receive(into);
    if (bytes.ok() && *bytes > kHeaderBytes) receive_.Spend(*bytes - kHeaderBytes);
    return bytes;
  }
  void SetCallbacks(std::function<void()> on_readable, std::function<void()> on_writable) override {
    receive_waiter_.resume = on_readable;
    send_waiter_.resume = on_writable;
    queue_.SetCallbacks(std::move(on_readable), std::move(on_writable));
  }
  [[nodiscard]] int tap_fd() const override { return -1; }

 private:
  FrameQueue& queue_;
  Direction& send_;
  Direction& receive_;
  Direction::Waiter send_waiter_;
  Direction::Waiter receive_waiter_;
};

class LimitedBackend final : public Backend {
 public:
  LimitedBackend(std::unique_ptr<Backend> backend, const RateLimits& limits,
                 const RateLimit::Clock& clock)
      : backend_(std::move(backend)),
        send_(limits.send_bps, clock),
        receive_(limits.receive_bps, clock) {
    for (uint16_t i = 0; i < backend_->queue_pairs(); ++i) {
      queues_.push_back(std::make_unique<LimitedQueue>(backend_->queue(i), send_, receive_));
    }
  }
  absl::Status Initialize(IoLoop& loop) {
    RETURN_IF_ERROR(send_.Initialize(loop));
    return receive_.Initialize(loop);
  }

  [[nodiscard]] uint16_t queue_pairs() const override { return backend_->queue_pairs(); }
  [[nodiscard]] FrameQueue& queue(uint16_t pair) override { return *queues_.at(pair); }
  absl::Status UseQueuePairs(uint16_t pairs) override { return backend_->UseQueuePairs(pairs); }
  [[nodiscard]] Offloads offloads() const override { return backend_->offloads(); }
  absl::Status SetReceiveOffloads(const Offloads& offloads) override {
    return backend_->SetReceiveOffloads(offloads);
  }
  [[nodiscard]] uint16_t mtu() const override { return backend_->mtu(); }
  [[nodiscard]] bool link_up() const override { return backend_->link_up(); }
  void SetLinkCallback(std::function<void()> on_change) override {
    backend_->SetLinkCallback(std::move(on_change));
  }
  [[nodiscard]] std::string description() const override { return backend_->description(); }
  void Inspect(inspect::Node& node) const override {
    backend_->Inspect(node);
    node.Child("send_limit", send_);
    node.Child("receive_limit", receive_);
  }

 private:
  const std::unique_ptr<Backend> backend_;
  Direction send_;
  Direction receive_;
  std::vector<std::unique_ptr<LimitedQueue>> queues_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> LimitBackend(std::unique_ptr<Backend> backend,
                                                      const RateLimits& limits, IoLoop& loop,
                                                      RateLimit::Clock clock) {
  if (!clock) clock = MonotonicNs;
  auto limited = std::make_unique<LimitedBackend>(std::move(backend), limits, clock);
  RETURN_IF_ERROR(limited->Initialize(loop));
  return limited;
}

}  // namespace bothy::net
