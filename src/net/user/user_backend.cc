#include "net/user/user_backend.h"

#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "net/ethernet.h"
#include "net/frame_counters.h"
#include "net/loop_alarm.h"
#include "net/user/forward_ports.h"
#include "net/user/loopback_gate.h"
#include "net/user/outbound_frame.h"
#include "net/user/slirp_library.h"
#include "support/log.h"
#include "support/unique_fd.h"

namespace bothy::net {
namespace {

constexpr uint16_t kLeastMtu = 576;
constexpr uint16_t kLargestMtu = 65'520;
// What waits for the guest. Sockets are only read while nothing does, so this is for answers to
// what it sends meanwhile.
constexpr size_t kMostQueuedBytes = 4 << 20;
constexpr size_t kMostQueuedFrames = 1024;
// Buffers kept for the next frames.
constexpr size_t kMostSpareBuffers = 64;
// Sockets that a guest may make us hold.
constexpr size_t kMostSockets = 16'384;
constexpr size_t kLeastSockets = 64;
// struct virtio_net_hdr_v1 (virtio 1.2, 5.1.6; C++ can't include <linux/virtio_net.h>).
constexpr size_t kFlagsOffset = 0;
constexpr uint8_t kNeedsChecksum = 1;
constexpr size_t kGsoTypeOffset = 1;
// What libslirp says when it has nothing to do at any time.
constexpr uint32_t kIdleMs = 1000;
// How far libslirp's clock may be behind: little beside the time after which it gives a flow up.
constexpr uint64_t kClockMs = 100;
constexpr uint64_t kNsPerMs = 1'000'000;

constexpr std::array<std::pair<int, uint32_t>, 5> kEvents = {{
    {SLIRP_POLL_IN, EPOLLIN},
    {SLIRP_POLL_OUT, EPOLLOUT},
    {SLIRP_POLL_PRI, EPOLLPRI},
    {SLIRP_POLL_ERR, EPOLLERR},
    {SLIRP_POLL_HUP, EPOLLHUP},
}};
uint32_t ToEpoll(int events) {
  uint32_t result = 0;
  for (const auto& [slirp, epoll] : kEvents) {
    if ((events & slirp) != 0) result |= epoll;
  }
  return result;
}
int FromEpoll(uint32_t events) {
  int result = 0;
  for (const auto& [slirp, epoll] : kEvents) {
    if ((events & epoll) != 0) result |= slirp;
  }
  return result;
}

// A share of the descriptors that this process may have: the rest of it needs some, too.
size_t SocketLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return kLeastSockets;
  return std::clamp<size_t>(limit.rlim_cur / 2, kLeastSockets, kMostSockets);
}

// The one queue there is, and what drives libslirp: whenever a socket or a timer of it is due, or
// the guest has sent something, a turn lets it do what there is to do, unless frames wait for the
// guest. So a guest that takes none (a paused one) stops the clock of its connections, and the data
// that its peers send stays in the host's sockets.
class UserBackend final : public Backend, private FrameQueue {
 public:
  UserBackend(const UserOptions& options, const UserAddresses& addresses,
              const SlirpLibrary& library, IoLoop& loop)
      : options_(options),
        addresses_(addresses),
        library_(library),
        loop_(loop),
        most_sockets_(SocketLimit()) {}
  ~UserBackend() override {
    const std::lock_guard lock(SlirpLibrary::mutex());
    if (slirp_ != nullptr) library_.cleanup(slirp_);
  }
  absl::Status Initialize();

  [[nodiscard]] uint16_t queue_pairs() const override { return 1; }
  [[nodiscard]] FrameQueue& queue(uint16_t /*pair*/) override { return *this; }
  absl::Status UseQueuePairs(uint16_t pairs) override {
    if (pairs == 1) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(description(), ": has one queue pair"));
  }
  [[nodiscard]] Offloads offloads() const override { return {}; }
  absl::Status SetReceiveOffloads(const Offloads& /*offloads*/) override {
    return absl::OkStatus();  // every frame is finished
  }
  [[nodiscard]] uint16_t mtu() const override { return options_.mtu; }
  [[nodiscard]] bool link_up() const override { return true; }
  void SetLinkCallback(std::function<void()> /*on_change*/) override {}
  [[nodiscard]] std::string description() const override {
    return absl::StrCat("user ", addresses_.cidr);
  }
  void Inspect(inspect::Node& node) const override;

 private:
  struct Timer {
    SlirpTimerCb function = nullptr;
    void* argument = nullptr;
    uint64_t due_ms = UINT64_MAX;
  };
  struct Polled {
    uint32_t events = 0;
    int index = -1;  // among polls_; -1: not asked for in the last round
  };

  // FrameQueue.
  Sent Send(std::span<const iovec> frame) override;
  absl::StatusOr<size_t> Receive(std::span<const iovec> into) override;
  void SetCallbacks(std::function<void()> on_readable,
                    std::function<void()> /*on_writable*/) override {
    on_readable_ = std::move(on_readable);
  }
  [[nodiscard]] int tap_fd() const override { return -1; }

  absl::Status AddForward(const Forward& forward);

  // libslirp's callbacks. The loop's thread, inside a call of libslirp.
  static UserBackend& Self(void* opaque) { return *static_cast<UserBackend*>(opaque); }
  ssize_t OnFrame(std::span<const uint8_t> frame);
  int AddPoll(int fd, int events);
  void OnClose(int fd);
  static const SlirpCb kCallbacks;

  void SetClock();
  void Poll(bool sockets);
  void ScheduleTurn();
  void Turn();
  void PollSockets();
  void FillPolls();

  const UserOptions options_;
  const UserAddresses addresses_;
  const SlirpLibrary& library_;
  IoLoop& loop_;
  const size_t most_sockets_;
  Slirp* slirp_ = nullptr;
  FrameCounters counters_;
  std::optional<LoopbackGate> gate_;  // where libslirp doesn't guard the host's loopback itself
  std::vector<uint8_t> frame_;        // for Send

  std::deque<std::vector<uint8_t>> queue_;  // for the guest
  size_t queued_bytes_ = 0;
  std::vector<std::vector<uint8_t>> spare_;
  std::function<void()> on_readable_;
  bool reader_waits_ = false;
  bool turn_waits_ = false;  // for the guest to take what is queued

  UniqueFd epoll_;
  std::unordered_map<int, Polled> polled_;  // what epoll_ holds
  std::vector<int> polls_;                  // what happened, by index; of the last round
  std::vector<epoll_event> events_;
  std::unordered_set<int> sockets_;  // that libslirp has open
  std::atomic<size_t> socket_count_ = 0;
  std::vector<std::unique_ptr<Timer>> timers_;

  uint64_t clock_ms_ = 0;  // of CLOCK_MONOTONIC, when libslirp last read it
  bool turn_posted_ = false;
  std::unique_ptr<LoopAlarm> alarm_;
  std::unique_ptr<IoLoop::Readiness> readiness_;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

const SlirpCb UserBackend::kCallbacks = {
    .send_packet = [](const void* frame, size_t size, void* opaque) -> ssize_t {
      return Self(opaque).OnFrame(std::span(static_cast<const uint8_t*>(frame), size));
    },
    .guest_error =
        [](const char* message, void* /*opaque*/) {
          static LogLimiter& limiter = *new LogLimiter;
          limiter.Log(LogLevel::kWarning, "net", absl::StrCat("libslirp: ", message));
        },
    .clock_get_ns = [](void* /*opaque*/) { return static_cast<int64_t>(MonotonicNs()); },
    .timer_new = [](SlirpTimerCb function, void* argument, void* opaque) -> void* {
      auto timer = std::make_unique<Timer>();
      timer->function = function;
      timer->argument = argument;
      return Self(opaque).timers_.emplace_back(std::move(timer)).get();
    },
    .timer_free =
        [](void* timer, void* opaque) {
          std::erase_if(Self(opaque).timers_,
                        [timer](const std::unique_ptr<Timer>& t) { return t.get() == timer; });
        },
    .timer_mod =
        [](void* timer, int64_t due_ms, void* /*opaque*/) {
          static_cast<Timer*>(timer)->due_ms = static_cast<uint64_t>(std::max<int64_t>(due_ms, 0));
        },
    .register_poll_fd =
        [](int fd, void* opaque) {
          if (fd < 0) return;  // a socket that it didn't get
          UserBackend& self = Self(opaque);
          self.sockets_.insert(fd);
          self.socket_count_.store(self.sockets_.size(), std::memory_order_relaxed);
        },
    .unregister_poll_fd = [](int fd, void* opaque) { Self(opaque).OnClose(fd); },
    .notify = [](void* opaque) { Self(opaque).ScheduleTurn(); },
    .init_completed = nullptr,
    .timer_new_opaque = nullptr,
};

absl::Status UserBackend::Initialize() {
  if (options_.mtu < kLeastMtu || options_.mtu > kLargestMtu) {
    return absl::InvalidArgumentError(
        absl::StrCat("MTU ", options_.mtu, " is out of range ", kLeastMtu, "..", kLargestMtu));
  }
  epoll_.Reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return ErrnoStatus(errno, "descriptors for user-mode networking");
  ASSIGN_OR_RETURN(alarm_, LoopAlarm::Create(loop_, [this] { Turn(); }));

  SlirpConfig config{};
  config.version = 1;  // every libslirp 4 knows it
  config.in_enabled = true;
  config.vnetwork = addresses_.network;
  config.vnetmask = addresses_.mask;
  config.vhost = addresses_.gateway;
  config.vdhcp_start = addresses_.guest;
  config.vnameserver = addresses_.name_server;
  config.in6_enabled = options_.ipv6;
  config.vprefix_addr6 = addresses_.prefix;
  config.vprefix_len = addresses_.prefix_length;
  config.vhost6 = addresses_.gateway6;
  config.vnameserver6 = addresses_.name_server6;
  config.if_mtu = options_.mtu;
  config.if_mru = options_.mtu;
  const bool udp_forwards =
      std::any_of(options_.forwards.begin(), options_.forwards.end(),
                  [](const Forward& f) { return f.protocol == Forward::Protocol::kUdp; });
  if (udp_forwards && !options_.host_loopback) gate_.emplace(addresses_);
  config.disable_host_loopback = !options_.host_loopback && !udp_forwards;
  {
    const std::lock_guard lock(SlirpLibrary::mutex());
    slirp_ = library_.create(&config, &kCallbacks, this);
    if (slirp_ == nullptr) {
      return absl::FailedPreconditionError(
          absl::StrCat("libslirp ", library_.version_string(), " refuses its configuration"));
    }
    for (const Forward& forward : options_.forwards) RETURN_IF_ERROR(AddForward(forward));
  }
  readiness_ = loop_.WatchReadiness(
      epoll_.get(), [this] { Turn(); }, nullptr);
  ScheduleTurn();
  return absl::OkStatus();
}

absl::Status UserBackend::AddForward(const Forward& forward) {
  const bool udp = forward.protocol == Forward::Protocol::kUdp;
  ASSIGN_OR_RETURN(const sockaddr_in host, ListenAddress(forward));
  if (library_.add_hostfwd(slirp_, udp ? 1 : 0, host.sin_addr, forward.host_port, in_addr{},
                           forward.guest_port) == 0) {
    return absl::OkStatus();
  }
  return ForwardError(errno, forward);
}

FrameQueue::Sent UserBackend::Send(std::span<const iovec> frame) {
  size_t size = 0;
  for (const iovec& buffer : frame) size += buffer.iov_len;
  const auto drop = [this](Drop why) {
    counters_.CountSendDrop(why);
    return Sent::kDropped;
  };
  if (size < kHeaderBytes + kEthernetHeaderBytes) return drop(Drop::kRunt);
  if (size > kHeaderBytes + kEthernetHeaderBytes + options_.mtu) return drop(Drop::kOversized);
  // A copy, since what is looked at must be what goes on, whatever the guest does to its memory.
  frame_.clear();
  for (const iovec& buffer : frame) {
    const auto* start = static_cast<const uint8_t*>(buffer.iov_base);
    frame_.insert(frame_.end(), start, start + buffer.iov_len);
  }
  if ((frame_[kFlagsOffset] & kNeedsChecksum) != 0 || frame_[kGsoTypeOffset] != 0) {
    return drop(Drop::kNotOffered);
  }
  const std::span<const uint8_t> bytes = std::span(frame_).subspan(kHeaderBytes);
  const OutboundFrame outbound = LookAt(bytes);
  if (outbound.to_host_loopback || (gate_.has_value() && !gate_->Passes(outbound))) {
    return drop(Drop::kHostLoopback);
  }
  // libslirp 4.7 as Debian builds it overwrites its own memory when the last of a packet's
  // fragments comes first; and of each it keeps as much memory as of the longest frame.
  if (outbound.fragment) return drop(Drop::kFragment);
  if (outbound.may_begin_flow && sockets_.size() >= most_sockets_) {
    return drop(Drop::kTooManyFlows);
  }
  counters_.CountSent(bytes.size());
  {
    const std::lock_guard lock(SlirpLibrary::mutex());
    SetClock();
    library_.input(slirp_, bytes.data(), static_cast<int>(bytes.size()));
  }
  ScheduleTurn();
  return Sent::kYes;
}

ssize_t UserBackend::OnFrame(std::span<const uint8_t> frame) {
  if (queue_.size() >= kMostQueuedFrames || queued_bytes_ + frame.size() > kMostQueuedBytes) {
    counters_.CountReceiveDrop(Drop::kQueueFull);
  } else {
    if (gate_.has_value()) gate_->Note(frame);
    std::vector<uint8_t> buffer;
    if (!spare_.empty()) {
      buffer = std::move(spare_.back());
      spare_.pop_back();
    }
    buffer.assign(frame.begin(), frame.end());
    queue_.push_back(std::move(buffer));
    queued_bytes_ += frame.size();
    if (reader_waits_) ScheduleTurn();
  }
  return static_cast<ssize_t>(frame.size());
}

absl::StatusOr<size_t> UserBackend::Receive(std::span<const iovec> into) {
  size_t room = 0;
  for (const iovec& buffer : into) room += buffer.iov_len;
  while (!queue_.empty()) {
    std::vector<uint8_t> frame = std::move(queue_.front());
    queue_.pop_front();
    queued_bytes_ -= frame.size();
    if (queue_.empty() && std::exchange(turn_waits_, false)) ScheduleTurn();
    const size_t total = kHeaderBytes + frame.size();
    if (total <= room) {
      // Nothing is left to do: a header of zeros.
      constexpr std::array<uint8_t, kHeaderBytes> kHeader{};
      std::span<const uint8_t> parts[] = {kHeader, frame};
      std::span<const uint8_t>* part = parts;
      for (const iovec& buffer : into) {
        std::span<uint8_t> to(static_cast<uint8_t*>(buffer.iov_base), buffer.iov_len);
        while (!to.empty() && part != std::end(parts)) {
          const size_t count = std::min(to.size(), part->size());
          std::memcpy(to.data(), part->data(), count);
          to = to.subspan(count);
          *part = part->subspan(count);
          if (part->empty()) ++part;
        }
      }
      counters_.CountReceived(frame.size());
    } else {
      counters_.CountReceiveDrop(Drop::kSmallBuffers);
    }
    if (spare_.size() < kMostSpareBuffers) spare_.push_back(std::move(frame));
    if (total <= room) return total;
  }
  reader_waits_ = true;
  return 0;
}

// libslirp reads the clock when it polls, and never elsewhere: a flow that began by that of the
// last turn, long ago on an idle card, would be too old in the next one.
void UserBackend::SetClock() {
  if (MonotonicNs() / kNsPerMs - clock_ms_ >= kClockMs) Poll(/*sockets=*/false);
}

void UserBackend::Poll(bool sockets) {
  clock_ms_ = MonotonicNs() / kNsPerMs;
  library_.pollfds_poll(
      slirp_, /*select_error=*/sockets ? 0 : 1,
      [](int index, void* opaque) { return Self(opaque).polls_.at(index); }, this);
}

void UserBackend::ScheduleTurn() {
  if (std::exchange(turn_posted_, true)) return;
  loop_.Post([this, alive = std::weak_ptr<bool>(alive_)] {
    if (alive.expired()) return;
    turn_posted_ = false;
    Turn();
  });
}

void UserBackend::Turn() {
  turn_waits_ = !queue_.empty();
  if (!turn_waits_) {
    const std::lock_guard lock(SlirpLibrary::mutex());
    PollSockets();
    FillPolls();
  }
  if (!turn_waits_) readiness_->AwaitReadable();
  if (!queue_.empty() && std::exchange(reader_waits_, false) && on_readable_) on_readable_();
}

void UserBackend::PollSockets() {
  events_.resize(std::max<size_t>(polled_.size(), 1));
  const int count = ::epoll_wait(epoll_.get(), events_.data(), static_cast<int>(events_.size()), 0);
  for (int i = 0; i < count; ++i) {
    const auto found = polled_.find(events_[i].data.fd);
    if (found != polled_.end()) polls_.at(found->second.index) = FromEpoll(events_[i].events);
  }
  Poll(/*sockets=*/true);
  const uint64_t now_ms = MonotonicNs() / kNsPerMs;
  // A timer's function may set it again, but makes and frees none.
  for (const std::unique_ptr<Timer>& timer : timers_) {
    if (timer->due_ms > now_ms) continue;
    timer->due_ms = UINT64_MAX;
    timer->function(timer->argument);
  }
}

void UserBackend::FillPolls() {
  polls_.clear();
  for (auto& [fd, polled] : polled_) polled.index = -1;
  uint32_t timeout_ms = UINT32_MAX;
  library_.pollfds_fill(
      slirp_, &timeout_ms,
      [](int fd, int events, void* opaque) { return Self(opaque).AddPoll(fd, events); }, this);
  std::erase_if(polled_, [this](const auto& entry) {
    if (entry.second.index >= 0) return false;
    (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, entry.first, nullptr);
    return true;
  });
  uint64_t due_ms = UINT64_MAX;
  const uint64_t now_ms = MonotonicNs() / kNsPerMs;
  if (timeout_ms < kIdleMs) due_ms = now_ms + timeout_ms;
  for (const std::unique_ptr<Timer>& timer : timers_) due_ms = std::min(due_ms, timer->due_ms);
  if (due_ms < UINT64_MAX / kNsPerMs) alarm_->SetNoLaterThan(due_ms * kNsPerMs);
}

int UserBackend::AddPoll(int fd, int events) {
  const int index = static_cast<int>(polls_.size());
  polls_.push_back(0);
  const auto [entry, is_new] = polled_.try_emplace(fd);
  entry->second.index = index;
  const uint32_t wanted = ToEpoll(events);
  if (is_new || entry->second.events != wanted) {
    epoll_event event{};
    event.events = wanted;
    event.data.fd = fd;
    entry->second.events = wanted;
    (void)::epoll_ctl(epoll_.get(), is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event);
  }
  return index;
}

void UserBackend::OnClose(int fd) {
  sockets_.erase(fd);
  socket_count_.store(sockets_.size(), std::memory_order_relaxed);
  // Its number may soon be another's.
  if (polled_.erase(fd) != 0) (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

void UserBackend::Inspect(inspect::Node& node) const {
  node.Value("backend", "user");
  node.Value("network", addresses_.cidr);
  node.Value("ipv6", options_.ipv6);
  node.Value("host_loopback", options_.host_loopback);
  node.Value("link_up", true);
  node.Value("mtu", options_.mtu);
  node.Value("sockets", socket_count_.load(std::memory_order_relaxed));
  node.Value("libslirp", library_.version_string());
  node.Child("forwards", [this](inspect::Node& forwards) {
    for (const Forward& forward : options_.forwards) {
      const bool udp = forward.protocol == Forward::Protocol::kUdp;
      forwards.Value(absl::StrCat(udp ? "udp-" : "tcp-",
                                  forward.host_address.empty() ? "*" : forward.host_address, "-",
                                  forward.host_port),
                     forward.guest_port);
    }
  });
  counters_.Inspect(node);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> OpenUserBackend(const UserOptions& options, IoLoop& loop) {
  ASSIGN_OR_RETURN(const UserAddresses addresses, ChooseAddresses(options.cidr));
  ASSIGN_OR_RETURN(const SlirpLibrary* library, SlirpLibrary::Load());
  auto backend = std::make_unique<UserBackend>(options, addresses, *library, loop);
  RETURN_IF_ERROR(backend->Initialize());
  return backend;
}

}  // namespace bothy::net
