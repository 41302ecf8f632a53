#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "support/io_engine.h"

namespace bothy {
namespace {

constexpr unsigned kSubmissions = 256;
// Room for the completion of everything that the ring is given, and of watches besides.
constexpr unsigned kCompletions = 1024;
// Operations in the ring; more wait for their turn, so that completions can't overflow.
constexpr size_t kMostInRing = 768;

// What a completion is about, in the low bits of its user data.
enum Tag : uint64_t { kOperation = 0, kWatch = 1, kWake = 2, kIgnored = 3, kReady = 4 };
constexpr uint64_t kTagMask = 7;

// What the user data of a completion points to.
template <typename T>
T& PointerTo(uint64_t data) {
  return *reinterpret_cast<T*>(data);  // NOLINT(performance-no-int-to-ptr): the ring keeps numbers
}

// One system call a turn: it hands over what was prepared since, and sleeps in the ring.
class UringLoop final : public IoEngine {
 public:
  static absl::StatusOr<std::unique_ptr<IoLoop>> Create(const Options& options) {
    UniqueFd wake(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!wake) return ErrnoStatus(errno, "eventfd for an I/O loop");
    auto loop = std::unique_ptr<UringLoop>(new UringLoop(options, std::move(wake)));
    RETURN_IF_ERROR(loop->Initialize());
    return loop;
  }
  ~UringLoop() override {
    if (initialized_) ::io_uring_queue_exit(&ring_);
    // Those whose Watch is gone, but which the ring had not let go of.
    for (WatchState* state : watches_) {
      CHECK(state->dead);
      delete state;
    }
    for (ReadyState* state : ready_states_) {
      CHECK(state->dead);
      delete state;
    }
  }

  std::unique_ptr<Watch> WatchEvent(int fd, std::function<void()> on_event) override {
    return NewWatch(fd, /*drains=*/true, std::move(on_event));
  }
  // A poll of several shots says of each write that there was one, whatever the count is.
  std::unique_ptr<Watch> WatchDoorbell(int eventfd, std::function<void()> on_event) override {
    return NewWatch(eventfd, /*drains=*/false, std::move(on_event));
  }
  std::unique_ptr<Readiness> WatchReadiness(int fd, std::function<void()> on_readable,
                                            std::function<void()> on_writable) override {
    auto* state = new ReadyState{
        .fd = fd,
        .readable = {.events = POLLIN, .on_ready = std::move(on_readable)},
        .writable = {.events = POLLOUT, .on_ready = std::move(on_writable)},
    };
    state->readable.owner = state;
    state->writable.owner = state;
    ready_states_.insert(state);
    return std::make_unique<UringReadiness>(*this, *state);
  }
  [[nodiscard]] Engine engine() const override { return Engine::kUring; }

 private:
  struct WatchState {
    int fd = -1;
    bool drains = true;  // it is read empty
    std::function<void()> on_event;
    bool armed = false;   // a poll is in the ring
    bool dead = false;    // its Watch is gone; freed when the ring has let go of it
    bool firing = false;  // on_event is being called
  };
  class UringWatch final : public Watch {
   public:
    UringWatch(UringLoop& loop, WatchState& state) : loop_(loop), state_(state) {}
    ~UringWatch() override { loop_.Forget(state_); }

   private:
    UringLoop& loop_;
    WatchState& state_;
  };

  // One poll a direction, since they come and go by themselves.
  struct ReadyState;
  struct alignas(8) Direction {
    uint32_t events = 0;
    std::function<void()> on_ready;
    ReadyState* owner = nullptr;
    bool awaited = false;
    bool in_ring = false;
  };
  struct ReadyState {
    int fd = -1;
    Direction readable;
    Direction writable;
    bool dead = false;    // its Readiness is gone; freed when the ring has let go of it
    bool firing = false;  // on_ready is being called
  };
  class UringReadiness final : public Readiness {
   public:
    UringReadiness(UringLoop& loop, ReadyState& state) : loop_(loop), state_(state) {}
    ~UringReadiness() override { loop_.Forget(state_); }
    void AwaitReadable() override { loop_.Await(state_.readable); }
    void AwaitWritable() override { loop_.Await(state_.writable); }

   private:
    UringLoop& loop_;
    ReadyState& state_;
  };

  UringLoop(const Options& options, UniqueFd wake) : IoEngine(options, std::move(wake)) {}

  absl::Status Initialize() {
    // Completions are worked on when the loop asks for them, and only then, by the one thread that
    // runs it; which that is isn't known yet, so the ring starts disabled. Linux 6.1; 5.19; 5.11.
    constexpr unsigned kAlways = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE;
    constexpr std::array<unsigned, 3> kChoices = {
        kAlways | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
            IORING_SETUP_TASKRUN_FLAG,
        kAlways | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, kAlways};
    int error = 0;
    for (const unsigned flags : kChoices) {
      io_uring_params params{};
      params.flags = flags;
      params.cq_entries = kCompletions;
      error = -::io_uring_queue_init_params(kSubmissions, &ring_, &params);
      if (error != 0) continue;
      initialized_ = true;
      tells_of_work_ = (flags & IORING_SETUP_TASKRUN_FLAG) != 0;
      constexpr unsigned kNeeded = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
      if ((params.features & kNeeded) != kNeeded) error = ENOSYS;
      break;
    }
    if (error != 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("io_uring: ", std::strerror(error),
                       "; needs Linux 5.11 or newer and kernel.io_uring_disabled at 0"));
    }
    return absl::OkStatus();
  }

  void BeforeFirstTurn() override {
    CHECK(::io_uring_enable_rings(&ring_) == 0);
    enabled_ = true;
    ArmWake();
    for (WatchState* state : watches_) Arm(*state);
    for (ReadyState* state : ready_states_) {
      for (Direction* direction : {&state->readable, &state->writable}) {
        if (direction->awaited) Arm(*direction);
      }
    }
  }

  void Begin(const FileCall& call) override {
    // In order: what waits has the right of way.
    if (!waiting_.empty() || !Prepare(call)) waiting_.push_back(call);
  }

  // False when there is no room.
  bool Prepare(const FileCall& call) {
    if (in_ring_ == kMostInRing) return false;
    io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
    if (sqe == nullptr) {
      Enter(/*wait=*/false);
      sqe = ::io_uring_get_sqe(&ring_);
      if (sqe == nullptr) return false;
    }
    const auto count = static_cast<unsigned>(call.buffers.size());
    switch (call.kind) {
      case FileCall::Kind::kRead:
        ::io_uring_prep_readv(sqe, call.fd, call.buffers.data(), count, call.offset);
        break;
      case FileCall::Kind::kWrite:
        ::io_uring_prep_writev(sqe, call.fd, call.buffers.data(), count, call.offset);
        break;
      case FileCall::Kind::kSync:
        ::io_uring_prep_fsync(sqe, call.fd, 0);
        break;
      case FileCall::Kind::kDataSync:
        ::io_uring_prep_fsync(sqe, call.fd, IORING_FSYNC_DATASYNC);
        break;
      case FileCall::Kind::kAllocate:
        ::io_uring_prep_fallocate(sqe, call.fd, call.mode, static_cast<off_t>(call.offset),
                                  static_cast<off_t>(call.length));
        break;
    }
    ::io_uring_sqe_set_data64(sqe, reinterpret_cast<uint64_t>(call.op) | kOperation);
    ++in_ring_;
    return true;
  }

  // For polls, once the ring is enabled; the kernel takes what is prepared unless it has no memory.
  io_uring_sqe* Slot() {
    io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
    while (sqe == nullptr) {
      Enter(/*wait=*/false);
      sqe = ::io_uring_get_sqe(&ring_);
    }
    return sqe;
  }
  void ArmWake() {
    io_uring_sqe* sqe = Slot();
    ::io_uring_prep_poll_multishot(sqe, posted().wake_fd(), POLLIN);
    ::io_uring_sqe_set_data64(sqe, kWake);
  }
  std::unique_ptr<Watch> NewWatch(int fd, bool drains, std::function<void()> on_event) {
    auto* state = new WatchState{.fd = fd, .drains = drains, .on_event = std::move(on_event)};
    watches_.insert(state);
    if (enabled_) Arm(*state);
    return std::make_unique<UringWatch>(*this, *state);
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

  void Await(Direction& direction) {
    if (std::exchange(direction.awaited, true)) return;
    if (enabled_) Arm(direction);
  }
  void Arm(Direction& direction) {
    io_uring_sqe* sqe = Slot();
    ::io_uring_prep_poll_add(sqe, direction.owner->fd, direction.events);
    ::io_uring_sqe_set_data64(sqe, reinterpret_cast<uint64_t>(&direction) | kReady);
    direction.in_ring = true;
  }
  void Forget(ReadyState& state) {
    state.dead = true;
    bool removed = false;
    for (Direction* direction : {&state.readable, &state.writable}) {
      if (!direction->in_ring) continue;
      io_uring_sqe* sqe = Slot();
      ::io_uring_prep_poll_remove(sqe, reinterpret_cast<uint64_t>(direction) | kReady);
      ::io_uring_sqe_set_data64(sqe, kIgnored);
      removed = true;
    }
    if (!removed) return FreeIfDone(state);
    // So that closing the descriptor after this really closes it.
    Enter(/*wait=*/false);
  }
  void FreeIfDone(ReadyState& state) {
    if (!state.dead || state.firing || state.readable.in_ring || state.writable.in_ring) return;
    ready_states_.erase(&state);
    delete &state;
  }
  void OnReady(Direction& direction) {
    ReadyState& state = *direction.owner;
    direction.in_ring = false;
    direction.awaited = false;
    if (!state.dead) {
      state.firing = true;
      direction.on_ready();
      state.firing = false;
    }
    FreeIfDone(state);
  }

  void HandOver() override { Enter(/*wait=*/false); }
  void Turn(bool sleep) override {
    // Without sleeping, the kernel is only entered when that does something.
    const bool prepared = ::io_uring_sq_ready(&ring_) != 0;
    if (sleep || prepared || !tells_of_work_ || KernelHasWork()) Enter(sleep);
    Reap();
    while (!waiting_.empty() && Prepare(waiting_.front())) waiting_.pop_front();
  }
  [[nodiscard]] bool KernelHasWork() const {
    constexpr unsigned kWork = IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW;
    return (__atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED) & kWork) != 0;
  }

  // Hands over what was prepared and, if `wait`, sleeps until something has completed.
  void Enter(bool wait) {
    if (!enabled_) return;
    const int result =
        wait ? ::io_uring_submit_and_wait(&ring_, 1) : ::io_uring_submit_and_get_events(&ring_);
    // EBUSY: completions overflowed, which Reap sees to; EAGAIN: no memory just now. What couldn't
    // be handed over stays prepared.
    CHECK(result >= 0 || result == -EINTR || result == -EBUSY || result == -EAGAIN);
  }

  void Reap() {
    // A handler may prepare more, and even enter the ring; each completion is taken out first.
    io_uring_cqe* cqe = nullptr;
    while (::io_uring_peek_cqe(&ring_, &cqe) == 0) {
      const uint64_t data = cqe->user_data;
      const int32_t result = cqe->res;
      const bool more = (cqe->flags & IORING_CQE_F_MORE) != 0;
      ::io_uring_cqe_seen(&ring_, cqe);
      switch (data & kTagMask) {
        case kOperation:
          --in_ring_;
          Finish(PointerTo<Operation>(data), result);
          break;
        case kWatch:
          OnWatch(PointerTo<WatchState>(data & ~kTagMask), result, more);
          break;
        case kReady:
          OnReady(PointerTo<Direction>(data & ~kTagMask));
          break;
        case kWake:
          posted().DrainWake();
          if (!more) ArmWake();
          break;
        default:
          break;
      }
    }
  }

  void OnWatch(WatchState& state, int32_t result, bool more) {
    state.armed = more;
    if (!state.dead) {
      // Anything else would be a descriptor that can't be watched, or was closed too soon.
      CHECK(result >= 0 || result == -ENOMEM || result == -ECANCELED);
      if (!state.drains || DrainEvents(state.fd)) {
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
  bool tells_of_work_ = false;  // whether KernelHasWork is to be relied on
  size_t in_ring_ = 0;          // operations, prepared ones included
  std::deque<FileCall> waiting_;
  std::unordered_set<WatchState*> watches_;
  std::unordered_set<ReadyState*> ready_states_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<IoLoop>> CreateUringLoop(const IoLoop::Options& options) {
  return UringLoop::Create(options);
}

}  // namespace bothy
