#include "cmd/bothyctl/output_writer.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "support/event_loop.h"

namespace bothy::bothyctl {

struct OutputWriter::State {
  int fd = -1;
  std::function<void()> progress;

  std::mutex mutex;
  // All guarded by mutex.
  std::condition_variable wake;
  std::string queued;
  size_t writing = 0;  // bytes of the write under way that are still to go
  std::optional<size_t> notify_at;
  int error = 0;
  bool ending = false;

  // With mutex held, so that nothing is called any more once the destructor has been here.
  void NotifyIfDue() {
    if (!notify_at || queued.size() + writing > *notify_at) return;
    notify_at.reset();
    progress();
  }
};

OutputWriter::OutputWriter(int fd, std::function<void()> progress)
    : state_(std::make_shared<State>()) {
  state_->fd = fd;
  state_->progress = std::move(progress);
  thread_ = std::thread([state = state_] {
    SetThreadName("console-out");
    Run(state);
  });
}

OutputWriter::~OutputWriter() {
  bool idle = false;
  {
    const std::lock_guard lock(state_->mutex);
    state_->ending = true;
    state_->notify_at.reset();
    state_->queued.clear();
    idle = state_->writing == 0;
  }
  state_->wake.notify_one();
  if (idle) {
    thread_.join();
  } else {
    thread_.detach();
  }
}

void OutputWriter::Write(std::string_view bytes) {
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->error != 0) return;
    state_->queued += bytes;
  }
  state_->wake.notify_one();
}

size_t OutputWriter::backlog() const {
  const std::lock_guard lock(state_->mutex);
  return state_->queued.size() + state_->writing;
}

void OutputWriter::NotifyAt(size_t backlog) {
  const std::lock_guard lock(state_->mutex);
  state_->notify_at = backlog;
  state_->NotifyIfDue();
}

int OutputWriter::error() const {
  const std::lock_guard lock(state_->mutex);
  return state_->error;
}

void OutputWriter::Run(const std::shared_ptr<State>& state) {
  std::string bytes;
  std::unique_lock lock(state->mutex);
  for (;;) {
    state->wake.wait(lock, [&] { return state->ending || !state->queued.empty(); });
    if (state->ending) return;
    bytes.clear();
    bytes.swap(state->queued);
    state->writing = bytes.size();
    for (size_t written = 0; written < bytes.size() && !state->ending;) {
      lock.unlock();
      const ssize_t size = ::write(state->fd, bytes.data() + written, bytes.size() - written);
      const int error = errno;
      lock.lock();
      if (size >= 0) {
        written += static_cast<size_t>(size);
        state->writing -= static_cast<size_t>(size);
      } else if (error == EAGAIN) {
        // Somebody who shares it made it non-blocking.
        pollfd poll_fd = {.fd = state->fd, .events = POLLOUT, .revents = 0};
        lock.unlock();
        ::poll(&poll_fd, 1, -1);
        lock.lock();
      } else if (error != EINTR) {
        state->error = error;
        state->queued.clear();
        state->writing = 0;
        written = bytes.size();
        if (!state->ending) state->progress();
      }
      state->NotifyIfDue();
    }
  }
}

}  // namespace bothy::bothyctl
