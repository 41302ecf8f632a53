// PostedTasks: what other threads want a loop's thread to do, and the eventfd that wakes it.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "support/unique_fd.h"

namespace bothy {

class PostedTasks {
 public:
  explicit PostedTasks(UniqueFd wake) : wake_(std::move(wake)) {}

  // The eventfd that is written when there is something new for a loop that may be asleep.
  [[nodiscard]] int wake_fd() const { return wake_.get(); }

  // Any thread.
  void Post(std::function<void()> task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
      if (!asleep_) return;
      asleep_ = false;
    }
    Wake();
  }
  void Wake() {
    const uint64_t one = 1;
    // A full counter wakes as well.
    (void)!::write(wake_.get(), &one, sizeof one);
  }

  // The rest on the loop's thread.
  // Runs what was posted before; what is posted meanwhile waits for the next call.
  bool RunAll() {
    {
      const std::lock_guard lock(mutex_);
      asleep_ = false;
      running_.swap(tasks_);
    }
    if (running_.empty()) return false;
    for (std::function<void()>& task : running_) {
      task();
      task = nullptr;
    }
    running_.clear();
    return true;
  }
  // Before the loop sleeps: false when there is something to run first. After true, the next Post
  // writes the eventfd.
  [[nodiscard]] bool MaySleep() {
    const std::lock_guard lock(mutex_);
    asleep_ = tasks_.empty();
    return asleep_;
  }
  void DrainWake() {
    uint64_t count = 0;
    (void)!::read(wake_.get(), &count, sizeof count);
  }

 private:
  const UniqueFd wake_;
  std::mutex mutex_;
  std::vector<std::function<void()>> tasks_;    // guarded by mutex_
  bool asleep_ = false;                         // guarded by mutex_
  std::vector<std::function<void()>> running_;  // loop thread only
};

}  // namespace bothy
