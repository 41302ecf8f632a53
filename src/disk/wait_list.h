// WaitList: coroutines that wait for something to change, all of one thread.
//
//   while (!room()) co_await changed.Wait();
#pragma once

#include <coroutine>
#include <utility>
#include <vector>

#include "support/check.h"

namespace bothy::disk {

class WaitList {
 public:
  WaitList() = default;
  WaitList(const WaitList&) = delete;
  WaitList& operator=(const WaitList&) = delete;
  ~WaitList() { CHECK(waiting_.empty()); }

  struct Awaiter {
    WaitList& list;
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiting) { list.waiting_.push_back(waiting); }
    void await_resume() noexcept {}
  };
  [[nodiscard]] Awaiter Wait() { return Awaiter{*this}; }

  // Resumes those that wait now; those that wait again meanwhile wait for the next one. Call it
  // last, since they may do anything.
  void WakeAll() {
    for (const std::coroutine_handle<> waiting : std::exchange(waiting_, {})) waiting.resume();
  }
  [[nodiscard]] bool empty() const { return waiting_.empty(); }

 private:
  std::vector<std::coroutine_handle<>> waiting_;
};

}  // namespace bothy::disk
