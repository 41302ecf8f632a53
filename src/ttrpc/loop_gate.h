// LoopGate: lets work from any thread onto a server's event loop for as long as the server is
// there.
//
// Answers may come long after the server, and the loop itself, are gone; whoever holds the gate can
// always call it, and work that comes too late is dropped. Thread-safe.
#pragma once

#include <functional>
#include <mutex>
#include <utility>

#include "support/event_loop.h"

namespace bothy::ttrpc {

class LoopGate {
 public:
  explicit LoopGate(EventLoop& loop) : loop_(&loop) {}

  // Runs `task` on the loop thread: at once when the caller is there, else queued.
  void Run(std::function<void()> task) {
    {
      const std::lock_guard lock(mutex_);
      if (loop_ == nullptr) return;
      if (!loop_->InLoopThread()) {
        loop_->Post(std::move(task));
        return;
      }
    }
    task();
  }
  // Queues `task` for the loop thread, whoever calls.
  void Post(std::function<void()> task) {
    const std::lock_guard lock(mutex_);
    if (loop_ != nullptr) loop_->Post(std::move(task));
  }
  // Nothing gets through any more.
  void Close() {
    const std::lock_guard lock(mutex_);
    loop_ = nullptr;
  }

 private:
  std::mutex mutex_;
  EventLoop* loop_;  // guarded by mutex_
};

}  // namespace bothy::ttrpc
