// EventLoop: one thread's worth of asynchronous work: sockets, timers, posted functions.
//
// A thin owner of an asio::io_context that has exactly one thread inside it, so handlers of one
// loop never run concurrently and need no strands. Code that only posts includes this header; code
// that uses sockets or timers takes context() and Asio's types.
#pragma once

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

namespace bothy {

// Names the calling thread as ps(1) and logs show it; at most 15 bytes are kept.
void SetThreadName(std::string_view name);

class EventLoop {
 public:
  EventLoop() : context_(1), work_(context_.get_executor()) {}
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  [[nodiscard]] asio::io_context& context() { return context_; }

  // Runs handlers on the calling thread until Stop.
  void Run();
  // Until so much time from now the loop polls, yielding its CPU in between, where it would sleep:
  // for a handler that expects more work sooner than a sleeping thread is woken up, which takes
  // tens of microseconds where an idle CPU is itself virtual. Loop thread only.
  void StayAwake(std::chrono::nanoseconds duration);
  // Makes Run return after the handler that is running; safe from any thread.
  void Stop() { context_.stop(); }
  // Queues `task` for the loop's thread; safe from any thread. Tasks run in the order posted.
  void Post(std::function<void()> task);
  // Runs `task` on the loop's thread and returns when it has. Must not be called on that thread,
  // nor after Stop.
  void PostAndWait(const std::function<void()>& task);
  // Whether the caller is on the loop's thread.
  [[nodiscard]] bool InLoopThread() const;

 private:
  asio::io_context context_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::optional<std::chrono::steady_clock::time_point> awake_until_;  // loop thread only
};

// An EventLoop with a thread of its own, named `name`; the destructor stops it and joins.
class LoopThread {
 public:
  explicit LoopThread(std::string name);
  ~LoopThread();
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;
  [[nodiscard]] EventLoop& loop() { return loop_; }

 private:
  EventLoop loop_;
  std::thread thread_;
};

}  // namespace bothy
