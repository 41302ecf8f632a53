// ParallelWork: a few threads that share the copying when a kernel is loaded.
//
// Most of loading a kernel is page faults: guest RAM appears as it is written. Those scale with
// cores, decoding doesn't, so the thread that decodes hands finished pieces to helpers. Helpers
// start with the second task: what is small stays on the caller's thread. Where the host gives no
// thread the caller does everything.
//
// Submit and Finish from one thread only; tasks run on any.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "support/status.h"

namespace bothy::boot {

class ParallelWork {
 public:
  using Task = std::function<absl::Status()>;

  // At most `max_threads` threads, the caller's included.
  explicit ParallelWork(unsigned max_threads);
  // Waits for the tasks that run; those that don't yet are dropped.
  ~ParallelWork();
  ParallelWork(const ParallelWork&) = delete;
  ParallelWork& operator=(const ParallelWork&) = delete;

  // Queues `task`. Runs one here when as many wait as there are helpers, which bounds what tasks
  // hold on to.
  void Submit(Task task);
  // Queues `task` for a helper that has nothing else to do, or for Finish. For what has to be done
  // some time and holds on to nothing.
  void SubmitForIdle(Task task);
  // Returns when every task of Submit has run: the first error that a task had. After an error the
  // rest aren't run.
  absl::Status FinishSubmitted();
  // Likewise for every task.
  absl::Status Finish();

 private:
  void StartHelpers();
  void HelperMain();
  struct Queue {
    std::deque<Task> waiting;
    unsigned running = 0;
    [[nodiscard]] bool done() const { return waiting.empty() && running == 0; }
  };
  // Runs the oldest task of `queue`, with `lock` released meanwhile.
  void RunOne(Queue& queue, std::unique_lock<std::mutex>& lock);
  // Likewise of the first queue that has one; false: there is none.
  bool RunAny(std::unique_lock<std::mutex>& lock);

  const unsigned max_helpers_;
  unsigned tasks_ = 0;  // so far
  std::vector<std::thread> helpers_;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  Queue submitted_;
  Queue for_idle_;
  bool stop_ = false;
  absl::Status status_;
};

}  // namespace bothy::boot
