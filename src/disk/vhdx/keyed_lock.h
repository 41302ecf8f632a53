// KeyedLock: mutual exclusion among coroutines of one thread, per key.
#pragma once

#include <coroutine>
#include <cstdint>
#include <deque>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "support/check.h"

namespace bothy::disk::vhdx {

class KeyedLock {
 public:
  class Guard {
   public:
    Guard(KeyedLock& lock, uint64_t key) : lock_(&lock), key_(key) {}
    Guard(Guard&& other) noexcept : lock_(std::exchange(other.lock_, nullptr)), key_(other.key_) {}
    Guard& operator=(Guard&&) = delete;
    ~Guard() {
      if (lock_ != nullptr) lock_->Unlock(key_);
    }

   private:
    KeyedLock* lock_;
    uint64_t key_;
  };

  KeyedLock() = default;
  KeyedLock(const KeyedLock&) = delete;
  KeyedLock& operator=(const KeyedLock&) = delete;
  ~KeyedLock() { CHECK(held_.empty()); }

  struct Awaiter {
    KeyedLock& lock;
    uint64_t key;
    [[nodiscard]] bool await_ready() { return lock.held_.try_emplace(key).second; }
    void await_suspend(std::coroutine_handle<> waiting) { lock.held_[key].push_back(waiting); }
    [[nodiscard]] Guard await_resume() { return Guard(lock, key); }
  };
  // `const KeyedLock::Guard guard = co_await lock.Lock(key);`
  [[nodiscard]] Awaiter Lock(uint64_t key) { return Awaiter{*this, key}; }

 private:
  void Unlock(uint64_t key) {
    const auto held = held_.find(key);
    if (held->second.empty()) {
      held_.erase(held);
      return;
    }
    const std::coroutine_handle<> next = held->second.front();
    held->second.pop_front();
    next.resume();  // the lock is its now
  }
  absl::flat_hash_map<uint64_t, std::deque<std::coroutine_handle<>>> held_;
};

}  // namespace bothy::disk::vhdx
