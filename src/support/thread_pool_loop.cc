#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <unordered_set>
#include <utility>
#include <vector>

#include "support/blocking_pool.h"
#include "support/check.h"
#include "support/io_engines.h"
#include "support/posted_tasks.h"

namespace bothy {
namespace {

int64_t ErrnoResult(int64_t result) { return result >= 0 ? result : -int64_t{errno}; }

class ThreadPoolLoop final : public IoLoop {
 public:
  static absl::StatusOr<std::unique_ptr<IoLoop>> Create(const Options& options) {
    UniqueFd wake(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
    if (!wake || !epoll) return ErrnoStatus(errno, "descriptors for an I/O loop");
    epoll_event event{};
    event.events = EPOLLIN;
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.get(), &event) != 0) {
      return ErrnoStatus(errno, "epoll_ctl for an I/O loop");
    }
    return std::unique_ptr<IoLoop>(new ThreadPoolLoop(options, std::move(wake), std::move(epoll)));
  }
  ~ThreadPoolLoop() override { CHECK(in_flight_ == 0 && watches_.empty()); }

  void Read(int fd, std::span<const iovec> buffers, uint64_t offset, Operation& op) override {
    RunBlocking(
        [fd, buffers, offset] {
          return ErrnoResult(::preadv(fd, buffers.data(), static_cast<int>(buffers.size()),
                                      static_cast<off_t>(offset)));
        },
        op);
  }
  void Write(int fd, std::span<const iovec> buffers, uint64_t offset, Operation& op) override {
    RunBlocking(
        [fd, buffers, offset] {
          return ErrnoResult(::pwritev(fd, buffers.data(), static_cast<int>(buffers.size()),
                                       static_cast<off_t>(offset)));
        },
        op);
  }
  void Fsync(int fd, Sync what, Operation& op) override {
    RunBlocking(
        [fd, what] { return ErrnoResult(what == Sync::kData ? ::fdatasync(fd) : ::fsync(fd)); },
        op);
  }
  void Fallocate(int fd, int mode, uint64_t offset, uint64_t length, Operation& op) override {
    RunBlocking(
        [fd, mode, offset, length] {
          return ErrnoResult(
              ::fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(length)));
        },
        op);
  }
  void RunBlocking(std::function<int64_t()> call, Operation& op) override {
    ++in_flight_;
    pool_.Run([this, call = std::move(call), &op] {
      const int64_t result = call();
      Post([this, &op, result] {
        --in_flight_;
        op.Complete(result);
      });
    });
  }

  std::unique_ptr<Watch> WatchEvent(int fd, std::function<void()> on_event) override {
    auto* state = new WatchState{.fd = fd, .on_event = std::move(on_event)};
    watches_.insert(state);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = state;
    CHECK(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0);
    return std::make_unique<PoolWatch>(*this, *state);
  }

  void Post(std::function<void()> task) override { posted_.Post(std::move(task)); }
  void Stop() override {
    stopped_.store(true, std::memory_order_release);
    posted_.Post([] {});
  }
  void Run() override {
    RunUntil([this] { return stopped_.load(std::memory_order_acquire); });
  }
  void RunUntil(const std::function<bool()>& done) override {
    while (!done()) {
      const bool busy = posted_.RunAll();
      if (busy && done()) return;
      Poll(busy || !posted_.MaySleep() ? 0 : -1);
    }
  }
  [[nodiscard]] Engine engine() const override { return Engine::kThreadPool; }

 private:
  struct WatchState {
    int fd = -1;
    std::function<void()> on_event;
    bool dead = false;
  };
  class PoolWatch final : public Watch {
   public:
    PoolWatch(ThreadPoolLoop& loop, WatchState& state) : loop_(loop), state_(state) {}
    ~PoolWatch() override { loop_.Forget(state_); }

   private:
    ThreadPoolLoop& loop_;
    WatchState& state_;
  };

  ThreadPoolLoop(const Options& options, UniqueFd wake, UniqueFd epoll)
      : epoll_(std::move(epoll)), posted_(std::move(wake)), pool_(options.pool_threads) {}

  void Forget(WatchState& state) {
    CHECK(::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, state.fd, nullptr) == 0);
    state.dead = true;
    // An event of it may be among those that Poll holds.
    if (!polling_) {
      Free(state);
    } else {
      dead_.push_back(&state);
    }
  }
  void Free(WatchState& state) {
    watches_.erase(&state);
    delete &state;
  }

  void Poll(int timeout_ms) {
    epoll_event events[32];
    const int count = ::epoll_wait(epoll_.get(), events, std::size(events), timeout_ms);
    CHECK(count >= 0 || errno == EINTR);
    polling_ = true;
    for (int i = 0; i < count; ++i) {
      auto* state = static_cast<WatchState*>(events[i].data.ptr);
      if (state == nullptr) {
        posted_.DrainWake();
        continue;
      }
      uint64_t value = 0;
      if (!state->dead && ::read(state->fd, &value, sizeof value) == sizeof value) {
        state->on_event();
      }
    }
    polling_ = false;
    for (WatchState* state : std::exchange(dead_, {})) Free(*state);
  }

  const UniqueFd epoll_;
  bool polling_ = false;
  size_t in_flight_ = 0;
  std::unordered_set<WatchState*> watches_;
  std::vector<WatchState*> dead_;
  std::atomic<bool> stopped_{false};
  PostedTasks posted_;
  BlockingPool pool_;  // its threads post
};

}  // namespace

absl::StatusOr<std::unique_ptr<IoLoop>> CreateThreadPoolLoop(const IoLoop::Options& options) {
  return ThreadPoolLoop::Create(options);
}

}  // namespace bothy
