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
    submitted_.waiting.clear();
    for_idle_.waiting.clear();
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void ParallelWork::Submit(Task task) {
  if (++tasks_ == 2) StartHelpers();
  std::unique_lock lock(mutex_);
  submitted_.waiting.push_back(std::move(task));
  changed_.notify_one();
  while (submitted_.waiting.size() > helpers_.size()) RunOne(submitted_, lock);
}

void ParallelWork::SubmitForIdle(Task task) {
  if (++tasks_ == 2) StartHelpers();
  const std::lock_guard lock(mutex_);
  for_idle_.waiting.push_back(std::move(task));
  changed_.notify_one();
}

absl::Status ParallelWork::FinishSubmitted() {
  std::unique_lock lock(mutex_);
  while (!submitted_.waiting.empty()) RunOne(submitted_, lock);
  changed_.wait(lock, [this] { return submitted_.done(); });
  return status_;
}

absl::Status ParallelWork::Finish() {
  std::unique_lock lock(mutex_);
  while (RunAny(lock)) {
  }
  changed_.wait(lock, [this] { return submitted_.done() && for_idle_.done(); });
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
  while (!stop_) {
    if (!RunAny(lock)) changed_.wait(lock);
  }
}

bool ParallelWork::RunAny(std::unique_lock<std::mutex>& lock) {
  Queue& queue = submitted_.waiting.empty() ? for_idle_ : submitted_;
  if (queue.waiting.empty()) return false;
  RunOne(queue, lock);
  return true;
}

void ParallelWork::RunOne(Queue& queue, std::unique_lock<std::mutex>& lock) {
  const Task task = std::move(queue.waiting.front());
  queue.waiting.pop_front();
  if (!status_.ok()) {
    changed_.notify_all();
    return;
  }
  ++queue.running;
  lock.unlock();
  absl::Status status = task();
  lock.lock();
  --queue.running;
  if (!status.ok() && status_.ok()) status_ = std::move(status);
  changed_.notify_all();
}

}  // namespace bothy::boot
