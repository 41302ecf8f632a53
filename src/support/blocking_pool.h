// BlockingPool: a few threads that make system calls which may block, for a loop that must not.
//
// Threads start when there is work for them. Run may be called from any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace bothy {

class BlockingPool {
 public:
  explicit BlockingPool(uint32_t threads) : limit_(threads) {}
  // Finishes what it was given.
  ~BlockingPool();
  BlockingPool(const BlockingPool&) = delete;
  BlockingPool& operator=(const BlockingPool&) = delete;

  // Runs `call` on one of the threads.
  void Run(std::function<void()> call);

 private:
  void ThreadMain();

  const uint32_t limit_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::deque<std::function<void()>> calls_;  // guarded by mutex_
  std::vector<std::thread> threads_;         // guarded by mutex_
  uint32_t idle_ = 0;                        // guarded by mutex_
  bool ending_ = false;                      // guarded by mutex_
};

}  // namespace bothy
