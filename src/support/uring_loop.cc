#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/blocking_pool.h"
#include "support/check.h"
#include "support/io_engines.h"
#include "support/posted_tasks.h"

namespace bothy {
namespace {

constexpr unsigned kEntries = 256;

// What a completion is about, in the low bits of its user data.
enum Tag : uint64_t { kOperation = 0, kWatch = 1, kWake = 2, kIgnored = 3 };
constexpr uint64_t kTagMask = 3;

class UringLoop final : public IoLoop {
 public:
  static absl::StatusOr<std::unique_ptr<IoLoop>> Create(const Options& options) {
    UniqueFd wake(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!wake) return ErrnoStatus(errno, "eventfd for an I/O loop");
    auto loop = std::unique_ptr<UringLoop>(new UringLoop(options, std::move(wake)));
    RETURN_IF_ERROR(loop->Initialize());
    return loop;
  }

  ~UringLoop() override {
    CHECK(in_flight_ == 0);
    if (initialized_) ::io_uring_queue_exit(&ring_);
    for (WatchState* state : watches_) delete state;
  }

  void Read(int fd, std::span<const iovec> buffers, uint64_t offset, Operation& op) override {
    io_uring_sqe* sqe = Prepare(op);
    ::io_uring_prep_readv(sqe, fd, buffers.data(), static_cast<unsigned>(buffers.size()), offset);
    Tie(sqe, op);
  }
  void Write(int fd, std::span<const iovec> buffers, uint64_t offset, Operation& op) override {
    io_uring_sqe* sqe = Prepare(op);
    ::io_uring_prep_writev(sqe, fd, buffers.data(), static_cast<unsigned>(buffers.size()), offset);
    Tie(sqe, op);
  }
  void Fsync(int fd, Sync what, Operation& op) override {
    io_uring_sqe* sqe = Prepare(op);
    ::io_uring_prep_fsync(sqe, fd, what == Sync::kData ? IORING_FSYNC_DATASYNC : 0);
    Tie(sqe, op);
  }
  void Fallocate(int fd, int mode, uint64_t offset, uint64_t length, Operation& op) override {
    io_uring_sqe* sqe = Prepare(op);
    ::io_uring_prep_fallocate(sqe, fd, mode, static_cast<off_t>(offset),
                              static_cast<off_t>(length));
    Tie(sqe, op);
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
    Arm(*state);
    return std::make_unique<UringWatch>(*this, *state);
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
    Enable();
    while (!done()) {
      if (posted_.RunAll()) {
        if (done()) return;
        // Completions get their turn between two rounds of tasks.
        Enter(/*wait=*/false);
      } else {
        Enter(posted_.MaySleep());
      }
      Reap();
    }
  }
  [[nodiscard]] Engine engine() const override { return Engine::kUring; }

 private:
  struct WatchState {
    int fd = -1;
    std::function<void()> on_event;
    bool armed = false;  // a poll is in the ring
    bool dead = false;   // its Watch is gone; freed when the ring has let go of it
    bool firing = false;
  };
  class UringWatch final : public Watch {
   public:
    UringWatch(UringLoop& loop, WatchState& state) : loop_(loop), state_(state) {}
    ~UringWatch() override { loop_.Forget(state_); }

   private:
    UringLoop& loop_;
    WatchState& state_;
  };

  UringLoop(const Options& options, UniqueFd wake)
      : posted_(std::move(wake)), pool_(options.pool_threads) {}

  absl::Status Initialize() {
    // Completions are only worked on when the loop asks for them, by the one thread that runs it:
    // it isn't known yet which, so the ring starts disabled. Linux 6.1; older ones take less.
    constexpr unsigned kBest = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                               IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP;
    int error = 0;
    for (const unsigned flags : {kBest, unsigned{IORING_SETUP_R_DISABLED}}) {
      io_uring_params params{};
      params.flags = flags;
      error = -::io_uring_queue_init_params(kEntries, &ring_, &params);
      if (error != 0) continue;
      initialized_ = true;
      constexpr unsigned kNeeded = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
      if ((params.features & kNeeded) != kNeeded) error = ENOSYS;
      break;
    }
    if (error != 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("io_uring: ", std::strerror(error),
                       "; needs Linux 5.11 and kernel.io_uring_disabled at 0"));
    }
    return absl::OkStatus();
  }

  // The thread that runs the loop first is the one that submits.
  void Enable() {
    if (std::exchange(enabled_, true)) return;
    CHECK(::io_uring_enable_rings(&ring_) == 0);
    ArmWake();
  }

  io_uring_sqe* Slot() {
    io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
    while (sqe == nullptr) {
      // Full: hand over what is there. Only with DEFER_TASKRUN may that not make room at once.
      Enter(/*wait=*/false);
      sqe = ::io_uring_get_sqe(&ring_);
    }
    return sqe;
  }
  io_uring_sqe* Prepare(Operation&) {
    ++in_flight_;
    return Slot();
  }
  static void Tie(io_uring_sqe* sqe, Operation& op) {
    ::io_uring_sqe_set_data64(sqe, reinterpret_cast<uint64_t>(&op) | kOperation);
  }

  void ArmWake() {
    io_uring_sqe* sqe = Slot();
    ::io_uring_prep_poll_multishot(sqe, posted_.wake_fd(), POLLIN);
    ::io_uring_sqe_set_data64(sqe, kWake);
  }
  void Arm(WatchState& state) {
    io_uring_sqe* sqe = Slot();
    ::io_uring_prep_poll_multishot(sqe, state.fd, POLLIN);
    ::io_uring_sqe_set_data64(sqe, reinterpret_cast<uint64_t>(&state) | kWatch);
    state.armed = true;
  }
  void Forget(WatchState& state) {
    state.dead = true;
    if (!state.armed) {
      if (!state.firing) Free(state);
      return;
    }
    io_uring_sqe* sqe = Slot();
    ::io_uring_prep_poll_remove(sqe, reinterpret_cast<uint64_t>(&state) | kWatch);
    ::io_uring_sqe_set_data64(sqe, kIgnored);
    // The caller may close the descriptor as soon as this returns.
    Enter(/*wait=*/false);
  }
  void Free(WatchState& state) {
    watches_.erase(&state);
    delete &state;
  }

  // Hands over what was prepared and, if `wait`, sleeps until something has completed.
  void Enter(bool wait) {
    if (!enabled_) return;
    while (true) {
      int result = 0;
      if (wait) {
        result = ::io_uring_submit_and_wait(&ring_, 1);
      } else {
        result = ::io_uring_submit_and_get_events(&ring_);
      }
      // EBUSY: the completion queue is full, which Reap will see to; EAGAIN: no memory just now.
      if (result >= 0 || result == -EINTR || result == -EBUSY || result == -EAGAIN) return;
      CHECK(result >= 0);
    }
  }

  void Reap() {
    // A handler may prepare more, and even enter the ring; each completion is taken out first.
    io_uring_cqe* cqe = nullptr;
    while (::io_uring_peek_cqe(&ring_, &cqe) == 0) {
      const uint64_t data = cqe->user_data;
      const int32_t result = cqe->res;
      const uint32_t flags = cqe->flags;
      ::io_uring_cqe_seen(&ring_, cqe);
      switch (data & kTagMask) {
        case kOperation:
          --in_flight_;
          reinterpret_cast<Operation*>(data)->Complete(result);
          break;
        case kWatch:
          OnWatch(*reinterpret_cast<WatchState*>(data & ~kTagMask), flags);
          break;
        case kWake:
          posted_.DrainWake();
          if ((flags & IORING_CQE_F_MORE) == 0) ArmWake();
          break;
        default:
          break;
      }
    }
  }

  void OnWatch(WatchState& state, uint32_t flags) {
    state.armed = (flags & IORING_CQE_F_MORE) != 0;
    if (!state.dead) {
      uint64_t count = 0;
      if (::read(state.fd, &count, sizeof count) == sizeof count) {
        state.firing = true;
        state.on_event();
        state.firing = false;
      }
    }
    if (state.armed) return;
    if (state.dead) {
      Free(state);
    } else {
      Arm(state);
    }
  }

  io_uring ring_{};
  bool initialized_ = false;
  bool enabled_ = false;
  size_t in_flight_ = 0;
  std::unordered_set<WatchState*> watches_;
  PostedTasks posted_;
  BlockingPool pool_;  // its threads post
  std::atomic<bool> stopped_{false};
};

}  // namespace

absl::StatusOr<std::unique_ptr<IoLoop>> CreateUringLoop(const IoLoop::Options& options) {
  return UringLoop::Create(options);
}

}  // namespace bothy
