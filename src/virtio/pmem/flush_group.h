// FlushGroup: lets flushes that are asked for together share one: whoever asks while one is running
// waits for the next, which covers all who asked by then.
//
// One thread: that of the loop.
#pragma once

#include <coroutine>
#include <functional>
#include <utility>
#include <vector>

#include "support/io_loop.h"
#include "support/task.h"

namespace bothy::virtio {

class FlushGroup {
 public:
  // `flush` does the work. `settle` is run after it and after those who waited went on, but before
  // the next one.
  FlushGroup(IoLoop& loop, std::function<Task<absl::Status>()> flush,
             std::function<Task<void>()> settle)
      : loop_(loop), flush_(std::move(flush)), settle_(std::move(settle)) {}
  FlushGroup(const FlushGroup&) = delete;
  FlushGroup& operator=(const FlushGroup&) = delete;

  // The result of a flush that begins after this call.
  Task<absl::Status> Join() {
    Waiter waiter(*this);
    absl::Status status = co_await waiter;
    co_return status;
  }
  // When nothing runs any more, nor does `settle`.
  Task<void> Idle() {
    IdleWaiter waiter(*this);
    co_await waiter;
  }

 private:
  class Waiter {
   public:
    explicit Waiter(FlushGroup& group) : group_(group) {}
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) {
      handle_ = handle;
      group_.waiting_.push_back(this);
      group_.Begin();
    }
    [[nodiscard]] absl::Status await_resume() { return std::move(status_); }
    void End(const absl::Status& status) {
      status_ = status;
      handle_.resume();
    }

   private:
    FlushGroup& group_;
    std::coroutine_handle<> handle_;
    absl::Status status_;
  };
  class IdleWaiter {
   public:
    explicit IdleWaiter(FlushGroup& group) : group_(group) {}
    [[nodiscard]] bool await_ready() const noexcept { return !group_.running_; }
    void await_suspend(std::coroutine_handle<> handle) { group_.idle_.push_back(handle); }
    void await_resume() const noexcept {}

   private:
    FlushGroup& group_;
  };

  void Begin() {
    if (std::exchange(running_, true)) return;
    // Those that come in the same round of the loop are in it, too.
    loop_.Post([this] { Start(Run(), [] {}); });
  }
  Task<void> Run() {
    while (!waiting_.empty()) {
      const std::vector<Waiter*> served = std::exchange(waiting_, {});
      const absl::Status status = co_await flush_();
      for (Waiter* waiter : served) waiter->End(status);
      co_await settle_();
    }
    running_ = false;
    for (const std::coroutine_handle<> handle : std::exchange(idle_, {})) handle.resume();
  }

  IoLoop& loop_;
  const std::function<Task<absl::Status>()> flush_;
  const std::function<Task<void>()> settle_;
  bool running_ = false;
  std::vector<Waiter*> waiting_;
  std::vector<std::coroutine_handle<>> idle_;
};

}  // namespace bothy::virtio
