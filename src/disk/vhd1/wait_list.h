// WaitList: coroutines that wait for something to have happened.
#pragma once

#include <coroutine>
#include <utility>
#include <vector>

namespace bothy::disk::vhd1 {

class WaitList {
 public:
  class Awaiter {
   public:
    explicit Awaiter(WaitList& list) : list_(list) {}
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiting) { list_.waiting_.push_back(waiting); }
    void await_resume() const noexcept {}

   private:
    WaitList& list_;
  };
  // Suspends until the next WakeAll.
  [[nodiscard]] Awaiter Wait() { return Awaiter(*this); }
  // Those that wait again meanwhile wait for the next one.
  void WakeAll() {
    const std::vector<std::coroutine_handle<>> woken = std::exchange(waiting_, {});
    for (const std::coroutine_handle<> handle : woken) handle.resume();
  }

 private:
  std::vector<std::coroutine_handle<>> waiting_;
};

}  // namespace bothy::disk::vhd1
