#include "chipset/loop_timer.h"

#include <algorithm>
#include <asio/error.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <mutex>
#include <optional>
#include <utility>

namespace bothy::chipset {
namespace {

using Clock = std::chrono::steady_clock;

// Longer delays are cut; a callback that finds itself early sets the timer again.
constexpr uint64_t kMaxDelayNs = 3'600'000'000'000;

}  // namespace

class LoopTimer::Shared : public std::enable_shared_from_this<Shared> {
 public:
  Shared(EventLoop& loop, std::function<void()> callback)
      : loop_(loop), callback_(std::move(callback)), timer_(loop.context()) {}

  void SetDeadline(std::optional<Clock::time_point> deadline) {
    {
      std::lock_guard lock(deadline_mutex_);
      deadline_ = deadline;
      if (std::exchange(posted_, true)) return;
    }
    loop_.Post([self = shared_from_this()] { self->Arm(); });
  }

  void Retire() {
    {
      std::lock_guard lock(callback_mutex_);
      callback_ = nullptr;
    }
    SetDeadline(std::nullopt);
  }

 private:
  void Arm() {
    std::optional<Clock::time_point> deadline;
    {
      std::lock_guard lock(deadline_mutex_);
      posted_ = false;
      deadline = deadline_;
    }
    if (!deadline.has_value()) {
      timer_.cancel();
      return;
    }
    timer_.expires_at(*deadline);
    timer_.async_wait([self = shared_from_this()](const asio::error_code& error) {
      if (!error) self->Fire();
    });
  }

  void Fire() {
    {
      std::lock_guard lock(deadline_mutex_);
      // Cancelled or put off while this was on its way; Arm follows.
      if (!deadline_.has_value() || *deadline_ > Clock::now()) return;
      deadline_.reset();
    }
    std::lock_guard lock(callback_mutex_);
    if (callback_) callback_();
  }

  EventLoop& loop_;
  std::mutex callback_mutex_;  // held while it runs
  std::function<void()> callback_;
  asio::steady_timer timer_;  // loop thread only

  std::mutex deadline_mutex_;
  // Guarded by deadline_mutex_.
  std::optional<Clock::time_point> deadline_;
  bool posted_ = false;
};

LoopTimer::LoopTimer(EventLoop& loop, std::function<void()> callback)
    : shared_(std::make_shared<Shared>(loop, std::move(callback))) {}

LoopTimer::~LoopTimer() { shared_->Retire(); }

void LoopTimer::Set(uint64_t delay_ns) {
  shared_->SetDeadline(Clock::now() + std::chrono::nanoseconds(std::min(delay_ns, kMaxDelayNs)));
}

void LoopTimer::Cancel() { shared_->SetDeadline(std::nullopt); }

}  // namespace bothy::chipset
