// PollLoop: one thread waiting for descriptors, times and other threads, with poll(2).
//
// Unlike support/event_loop.h it never makes a descriptor non-blocking: standard input and output
// are shared with the shell and with whatever else has them open, and O_NONBLOCK would be theirs,
// too. Regular files, which epoll(7) refuses, can be watched as well.
//
// Everything is for the loop's thread, except Post.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "support/unique_fd.h"

namespace bothy::bothyctl {

class PollLoop {
 public:
  using Clock = std::chrono::steady_clock;

  PollLoop();
  PollLoop(const PollLoop&) = delete;
  PollLoop& operator=(const PollLoop&) = delete;

  // Calls `ready` whenever poll(2) reports any of `events` (POLLIN, POLLOUT), an error or a hang-up
  // on `fd`; replaces an earlier watch of it. The descriptor stays the caller's, who unwatches it
  // before it is closed.
  void Watch(int fd, short events, std::function<void()> ready);
  void Unwatch(int fd);

  // Runs `task` in the loop, soon. Any thread.
  void Post(std::function<void()> task);

  // Waits and calls back until `done` says so, asked after each round; at once if it does already.
  // False if `deadline` passed first.
  bool RunUntil(const std::function<bool()>& done,
                Clock::time_point deadline = Clock::time_point::max());

 private:
  struct Watched {
    short events;
    std::function<void()> ready;
  };

  void RunPosted();

  std::map<int, Watched> watched_;
  UniqueFd wake_;
  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;  // guarded by mutex_
};

}  // namespace bothy::bothyctl
