#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <iterator>
#include <unordered_set>
#include <utility>
#include <vector>

#include "support/check.h"
#include "support/io_engine.h"

namespace bothy {
namespace {

class ThreadPoolLoop final : public IoEngine {
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
  ~ThreadPoolLoop() override { CHECK(watches_.empty()); }

  std::unique_ptr<Watch> WatchEvent(int fd, std::function<void()> on_event) override {
    auto* state = new WatchState;
    state->fd = fd;
    state->on_event = std::move(on_event);
    watches_.insert(state);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = state;
    CHECK(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0);
    return std::make_unique<PoolWatch>(*this, *state);
  }
  std::unique_ptr<Watch> WatchDoorbell(int eventfd, std::function<void()> on_event) override {
    return WatchEvent(eventfd, std::move(on_event));
  }
  std::unique_ptr<Readiness> WatchReadiness(int fd, std::function<void()> on_readable,
                                            std::function<void()> on_writable) override {
    auto* state = new WatchState;
    state->fd = fd;
    state->on_event = std::move(on_readable);
    state->on_writable = std::move(on_writable);
    state->readiness = true;
    watches_.insert(state);
    return std::make_unique<PoolReadiness>(*this, *state);
  }
  [[nodiscard]] Engine engine() const override { return Engine::kThreadPool; }

 private:
  struct WatchState {
    int fd = -1;
    std::function<void()> on_event;  // or on_readable
    std::function<void()> on_writable;
    bool readiness = false;  // what follows is in use
    bool added = false;      // to the epoll set, where it is silent while nothing is awaited
    uint32_t awaited = 0;    // EPOLLIN, EPOLLOUT
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

  class PoolReadiness final : public Readiness {
   public:
    PoolReadiness(ThreadPoolLoop& loop, WatchState& state) : loop_(loop), state_(state) {}
    ~PoolReadiness() override { loop_.Forget(state_); }
    void AwaitReadable() override { loop_.Await(state_, EPOLLIN); }
    void AwaitWritable() override { loop_.Await(state_, EPOLLOUT); }

   private:
    ThreadPoolLoop& loop_;
    WatchState& state_;
  };

  ThreadPoolLoop(const Options& options, UniqueFd wake, UniqueFd epoll)
      : IoEngine(options, std::move(wake)), epoll_(std::move(epoll)) {}

  void Begin(const FileCall& call) override { BeginOnPool(call); }

  void Await(WatchState& state, uint32_t direction) {
    if ((state.awaited & direction) != 0) return;
    state.awaited |= direction;
    epoll_event event{};
    event.events = state.awaited | EPOLLONESHOT;
    event.data.ptr = &state;
    const int operation = std::exchange(state.added, true) ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    CHECK(::epoll_ctl(epoll_.get(), operation, state.fd, &event) == 0);
  }
  void OnReady(WatchState& state, uint32_t events) {
    // The end and errors are of interest in both directions.
    if ((events & (EPOLLHUP | EPOLLERR)) != 0) events |= EPOLLIN | EPOLLOUT;
    const uint32_t ready = state.awaited & events;
    const uint32_t rest = state.awaited & ~ready;
    state.awaited = 0;
    if (rest != 0) Await(state, rest);
    if ((ready & EPOLLIN) != 0) state.on_event();
    if ((ready & EPOLLOUT) != 0 && !state.dead) state.on_writable();
  }

  void Forget(WatchState& state) {
    if (!state.readiness || state.added) {
      CHECK(::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, state.fd, nullptr) == 0);
    }
    state.dead = true;
    // An event of it may be among those that Turn holds.
    if (turning_) {
      dead_.push_back(&state);
    } else {
      Free(state);
    }
  }
  void Free(WatchState& state) {
    watches_.erase(&state);
    delete &state;
  }

  void Turn(bool sleep) override {
    epoll_event events[32];
    const int count = ::epoll_wait(epoll_.get(), events, std::size(events), sleep ? -1 : 0);
    CHECK(count >= 0 || errno == EINTR);
    turning_ = true;
    for (int i = 0; i < count; ++i) {
      auto* state = static_cast<WatchState*>(events[i].data.ptr);
      if (state == nullptr) {
        posted().DrainWake();
        continue;
      }
      if (state->dead) continue;
      if (state->readiness) {
        OnReady(*state, events[i].events);
      } else if (DrainEvents(state->fd)) {
        state->on_event();
      }
    }
    turning_ = false;
    for (WatchState* state : std::exchange(dead_, {})) Free(*state);
  }

  const UniqueFd epoll_;
  bool turning_ = false;
  std::unordered_set<WatchState*> watches_;
  std::vector<WatchState*> dead_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<IoLoop>> CreateThreadPoolLoop(const IoLoop::Options& options) {
  return ThreadPoolLoop::Create(options);
}

}  // namespace bothy
