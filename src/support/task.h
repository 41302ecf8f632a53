// Task<T>: one asynchronous operation, written as a coroutine.
//
// Lazy: a Task does nothing until it is awaited, or started with Start. It runs on the thread that
// resumes it; nothing here hops threads, so code of one I/O thread needs no locks. Move-only. A
// Task that has begun must not be destroyed before it is done (its frame is what the I/O in flight
// points to).
//
//   Task<absl::Status> Copy(Disk& from, Disk& to, uint64_t offset, std::span<uint8_t> buffer) {
//     absl::Status status = co_await Read(from, offset, buffer);
//     CO_RETURN_IF_ERROR(status);
//     co_return co_await Write(to, offset, buffer);
//   }
//   Start(Copy(a, b, 0, buffer), [](absl::Status status) { ... });
//
// For g++ 12: await into a named variable, pass named variables (no temporaries with destructors,
// no initializer lists) to what is awaited, and keep co_await out of conditional expressions.
#pragma once

#include <coroutine>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

#include "support/check.h"
#include "support/status.h"

namespace bothy {

template <typename T>
class [[nodiscard]] Task;

namespace task_internal {

struct PromiseBase {
  struct FinalAwaiter {
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    template <typename Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> done) noexcept {
      return done.promise().continuation;
    }
    void await_resume() noexcept {}
  };
  std::suspend_always initial_suspend() noexcept { return {}; }
  FinalAwaiter final_suspend() noexcept { return {}; }
  // Nothing of ours throws across a library boundary.
  void unhandled_exception() noexcept { std::terminate(); }

  std::coroutine_handle<> continuation = std::noop_coroutine();
};

template <typename T>
struct Promise final : PromiseBase {
  Task<T> get_return_object();
  template <typename U>
  void return_value(U&& result) {
    value.emplace(std::forward<U>(result));
  }
  std::optional<T> value;
};

template <>
struct Promise<void> final : PromiseBase {
  Task<void> get_return_object();
  void return_void() {}
};

}  // namespace task_internal

template <typename T>
class [[nodiscard]] Task {
 public:
  using promise_type = task_internal::Promise<T>;

  Task() = default;
  explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      if (handle_) handle_.destroy();
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  ~Task() {
    if (handle_) handle_.destroy();
  }

  auto operator co_await() && {
    struct Awaiter {
      std::coroutine_handle<promise_type> handle;
      [[nodiscard]] bool await_ready() const noexcept { return false; }
      std::coroutine_handle<> await_suspend(std::coroutine_handle<> waiting) noexcept {
        handle.promise().continuation = waiting;
        return handle;
      }
      T await_resume() {
        if constexpr (!std::is_void_v<T>) return *std::move(handle.promise().value);
      }
    };
    CHECK(handle_);
    return Awaiter{handle_};
  }

 private:
  std::coroutine_handle<promise_type> handle_;
};

namespace task_internal {

template <typename T>
Task<T> Promise<T>::get_return_object() {
  return Task<T>(std::coroutine_handle<Promise<T>>::from_promise(*this));
}
inline Task<void> Promise<void>::get_return_object() {
  return Task<void>(std::coroutine_handle<Promise<void>>::from_promise(*this));
}

// A coroutine that nobody awaits and that frees itself at its end.
struct Detached {
  struct promise_type {
    Detached get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() noexcept { std::terminate(); }
  };
};

}  // namespace task_internal

// Runs `task` until it first waits; `done` is called with its result when it ends, which may be
// before Start returns.
template <typename T, typename Done>
void Start(Task<T> task, Done done) {
  // A function of its own, since a lambda's captures would go with the lambda.
  [](Task<T> running, Done then) -> task_internal::Detached {
    if constexpr (std::is_void_v<T>) {
      co_await std::move(running);
      then();
    } else {
      T result = co_await std::move(running);
      then(std::move(result));
    }
  }(std::move(task), std::move(done));
}

}  // namespace bothy

// RETURN_IF_ERROR and ASSIGN_OR_RETURN for coroutines. `expr` holds no co_await: await first.
#define CO_RETURN_IF_ERROR(expr)                                  \
  do {                                                            \
    if (absl::Status bothy_status = (expr); !bothy_status.ok()) { \
      co_return bothy_status;                                     \
    }                                                             \
  } while (false)
// `lhs` is an existing variable or a declaration; `statusor` the name of an absl::StatusOr
// variable.
#define CO_ASSIGN_OR_RETURN(lhs, statusor)             \
  if (!(statusor).ok()) co_return (statusor).status(); \
  lhs = std::move(statusor).value()
