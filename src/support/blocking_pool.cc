#include "support/blocking_pool.h"

#include <system_error>
#include <utility>

#include "support/event_loop.h"

namespace bothy {

BlockingPool::~BlockingPool() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void BlockingPool::Run(std::function<void()> call) {
  {
    const std::lock_guard lock(mutex_);
    if (idle_ <= calls_.size() && threads_.size() < limit_) {
      try {
        threads_.emplace_back([this] { ThreadMain(); });
      } catch (const std::system_error&) {
        // A limit on threads. Those there are will do; without any, the caller does it itself.
      }
    }
    if (!threads_.empty()) {
      calls_.push_back(std::move(call));
      call = nullptr;
    }
  }
  if (call != nullptr) return call();
  work_.notify_one();
}

void BlockingPool::ThreadMain() {
  SetThreadName("io-blocking");
  std::unique_lock lock(mutex_);
  while (true) {
    ++idle_;
    work_.wait(lock, [this] { return ending_ || !calls_.empty(); });
    --idle_;
    if (calls_.empty()) return;
    const std::function<void()> call = std::move(calls_.front());
    calls_.pop_front();
    lock.unlock();
    call();
    lock.lock();
  }
}

}  // namespace bothy
