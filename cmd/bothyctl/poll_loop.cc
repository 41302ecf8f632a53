#include "cmd/bothyctl/poll_loop.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "support/check.h"

namespace bothy::bothyctl {
namespace {

// poll(2)'s timeout until `deadline`, rounded up; -1: for ever.
int PollTimeout(PollLoop::Clock::time_point deadline) {
  if (deadline == PollLoop::Clock::time_point::max()) return -1;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - PollLoop::Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, std::numeric_limits<int>::max()));
}

}  // namespace

PollLoop::PollLoop() : wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  CHECK(wake_.valid());
  Watch(wake_.get(), POLLIN, [this] { RunPosted(); });
}

void PollLoop::Watch(int fd, short events, std::function<void()> ready) {
  watched_[fd] = {events, std::move(ready)};
}

void PollLoop::Unwatch(int fd) { watched_.erase(fd); }

void PollLoop::Post(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    posted_.push_back(std::move(task));
  }
  const uint64_t one = 1;
  CHECK(::write(wake_.get(), &one, sizeof one) == sizeof one);
}

void PollLoop::RunPosted() {
  uint64_t count = 0;
  CHECK(::read(wake_.get(), &count, sizeof count) == sizeof count);
  std::vector<std::function<void()>> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.swap(posted_);
  }
  for (const auto& task : tasks) task();
}

bool PollLoop::RunUntil(const std::function<bool()>& done, Clock::time_point deadline) {
  while (!done()) {
    std::vector<pollfd> fds;
    fds.reserve(watched_.size());
    for (const auto& [fd, watched] : watched_) {
      fds.push_back({.fd = fd, .events = watched.events, .revents = 0});
    }
    const int ready = ::poll(fds.data(), fds.size(), PollTimeout(deadline));
    CHECK(ready >= 0 || errno == EINTR);
    if (ready == 0 && Clock::now() >= deadline) return done();
    if (ready <= 0) continue;
    for (const pollfd& poll_fd : fds) {
      if (poll_fd.revents == 0) continue;
      // An earlier callback of this round may have ended the watch.
      const auto found = watched_.find(poll_fd.fd);
      if (found == watched_.end()) continue;
      const auto callback = found->second.ready;
      callback();
    }
  }
  return true;
}

}  // namespace bothy::bothyctl
