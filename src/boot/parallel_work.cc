#include "boot/parallel_work.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "support/event_loop.h"

namespace bothy::boot {

ParallelWork::ParallelWork(unsigned max_threads) : max_helpers_(std::max(max_threads, 1U) - 1) {}

ParallelWork::~ParallelWork() {
  {
    const std::lock_guard lock(mutex_);
    waiting_.clear();
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void ParallelWork::Submit(Task task) {
  if (std::exchange(submitted_any_, true) && helpers_.empty()) StartHelpers();
  std::unique_lock lock(mutex_);
  waiting_.push_back(std::move(task));
  changed_.notify_one();
  while (waiting_.size() > helpers_.size()) RunOne(lock);
}

absl::Status ParallelWork::Finish() {
  std::unique_lock lock(mutex_);
  while (!waiting_.empty()) RunOne(lock);
  changed_.wait(lock, [this] { return running_ == 0; });
  return status_;
}

void ParallelWork::StartHelpers() {
  for (unsigned i = 0; i < max_helpers_; ++i) {
    try {
      helpers_.emplace_back([this] { HelperMain(); });
    } catch (const std::system_error&) {
      return;  // a limit on threads; fewer will do
    }
  }
}

void ParallelWork::HelperMain() {
  SetThreadName("boot-copy");
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    RunOne(lock);
  }
}

void ParallelWork::RunOne(std::unique_lock<std::mutex>& lock) {
  const Task task = std::move(waiting_.front());
  waiting_.pop_front();
  if (!status_.ok()) return;
  ++running_;
  lock.unlock();
  absl::Status status = task();
  lock.lock();
  --running_;
  if (!status.ok() && status_.ok()) status_ = std::move(status);
  if (running_ == 0) changed_.notify_all();
}

}  // namespace bothy::boot
