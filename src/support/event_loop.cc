#include "support/event_loop.h"

#include <pthread.h>
#include <sched.h>

#include <asio/post.hpp>
#include <future>
#include <utility>

#include "support/check.h"

namespace bothy {

void SetThreadName(std::string_view name) {
  ::pthread_setname_np(::pthread_self(), std::string(name.substr(0, 15)).c_str());
}

void EventLoop::Run() {
  while (!context_.stopped()) {
    if (!awake_until_) {
      context_.run_one();
    } else if (context_.poll() == 0) {
      if (std::chrono::steady_clock::now() >= *awake_until_) awake_until_.reset();
      ::sched_yield();
    }
  }
}

void EventLoop::StayAwake(std::chrono::nanoseconds duration) {
  awake_until_ = std::chrono::steady_clock::now() + duration;
}

void EventLoop::Post(std::function<void()> task) { asio::post(context_, std::move(task)); }

void EventLoop::PostAndWait(const std::function<void()>& task) {
  CHECK(!InLoopThread());
  std::promise<void> done;
  Post([&] {
    task();
    done.set_value();
  });
  done.get_future().wait();
}

bool EventLoop::InLoopThread() const {
  return const_cast<asio::io_context&>(context_).get_executor().running_in_this_thread();
}

LoopThread::LoopThread(std::string name)
    : thread_([this, name = std::move(name)] {
        SetThreadName(name);
        loop_.Run();
      }) {}

LoopThread::~LoopThread() {
  loop_.Stop();
  thread_.join();
}

}  // namespace bothy
