#include "chipset/serial/serial_relay.h"

#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <asio/error.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "chipset/guest_clock.h"
#include "chipset/serial/output_ring.h"
#include "support/log.h"
#include "support/unique_fd.h"
#include "support/unix_socket.h"

namespace bothy::chipset {
namespace {

using Descriptor = asio::posix::stream_descriptor;
using asio::error_code;

constexpr const char* kComponent = "serial";

// What one turn of the loop moves at most.
constexpr size_t kReadBytes = 4096;
constexpr size_t kWriteBytes = size_t{16} * 1024;
constexpr int kWritesPerTurn = 4;
// What a client that has left may have sent and the guest not read yet; more than a socket buffer
// holds by default.
constexpr size_t kMaxInputBytes = size_t{256} * 1024;

// A guest prints byte by byte. After a write the loop looks again once this has passed instead of
// being woken by the next byte, so that a vCPU wakes it only after a silence.
constexpr std::chrono::milliseconds kOutputDelay(2);

// Clients that wait while another one is served.
constexpr int kBacklog = 16;

// Creating a listener races with other servers that want the same path; each round lost means that
// one of them came or went, or is about to have it.
constexpr int kMaxRaces = 100;

}  // namespace

// Shared by the relay and the handlers that are under way on the loop. Public methods: any thread
// unless said otherwise; the rest: loop thread only.
class SerialRelay::Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(EventLoop& loop, SerialRelayOptions options, UnixListener listener)
      : loop_(loop),
        name_(std::move(options.name)),
        path_(std::move(options.socket_path)),
        retry_delay_(options.retry_delay),
        listens_(listener.valid()),
        listener_(std::move(listener)),
        acceptor_(loop.context()),
        peer_(loop.context()),
        output_timer_(loop.context()),
        retry_timer_(loop.context()) {}

  // Once, before anything else. `peer`: connected already, or invalid.
  void Start(UniqueFd peer) {
    first_peer_ = std::move(peer);
    RunOnLoop([self = shared_from_this()] { self->Begin(); });
  }

  // The last call.
  void Shutdown() {
    Attach(nullptr);
    listener_.RemovePath();
    RunOnLoop([self = shared_from_this()] { self->End(); });
  }

  void Transmit(std::span<const uint8_t> bytes) {
    bool wake = false;
    {
      std::lock_guard lock(output_mutex_);
      if (status_.first_output_host_ns == 0) status_.first_output_host_ns = HostMonotonicNs();
      status_.bytes_from_guest += bytes.size();
      ring_.Append(bytes);
      if (status_.connected && !writing_) wake = writing_ = true;
    }
    if (wake) loop_.Post([self = shared_from_this()] { self->WriteOutput(); });
  }

  void OfferInputSoon() {
    loop_.Post([self = shared_from_this()] { self->OfferInput(); });
  }

  void Attach(SerialInput* input) {
    {
      std::lock_guard lock(port_mutex_);
      port_ = input;
    }
    if (input != nullptr) OfferInputSoon();
  }

  SerialRelayStatus Status() const {
    std::lock_guard lock(output_mutex_);
    return status_;
  }

 private:
  void RunOnLoop(std::function<void()> task) {
    if (loop_.InLoopThread()) {
      task();
    } else {
      loop_.Post(std::move(task));
    }
  }

  void Begin() {
    if (ended_) return;
    if (listens_) {
      {
        std::lock_guard lock(output_mutex_);
        status_.listening = true;
      }
      error_code error;
      UniqueFd fd = listener_.TakeSocket();
      acceptor_.assign(fd.get(), error);
      if (error) {
        Warn(absl::StrCat("can't listen on ", path_, ": ", error.message()));
        return;
      }
      (void)fd.Release();
      Accept();
    } else if (first_peer_) {
      Connected(std::move(first_peer_));
    } else {
      ReconnectLater();
    }
  }

  void End() {
    if (ended_) return;
    ended_ = true;
    if (peer_.is_open()) {
      while (WriteOnce() > 0) {
      }
    }
    {
      std::lock_guard lock(output_mutex_);
      status_.connected = false;
    }
    error_code ignored;
    peer_.close(ignored);
    acceptor_.close(ignored);
    output_timer_.cancel();
    retry_timer_.cancel();
  }

  void Accept() {
    acceptor_.async_wait(Descriptor::wait_read,
                         [self = shared_from_this()](const error_code& error) {
                           if (!error) self->AcceptOne();
                         });
  }

  void AcceptOne() {
    if (ended_) return;
    UniqueFd fd(
        ::accept4(acceptor_.native_handle(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd) {
      Connected(std::move(fd));
    } else if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR) {
      Accept();
    } else {
      Warn(absl::StrCat("accept: ", std::string(ErrnoStatus(errno, path_).message())));
      RetryLater([this] { Accept(); });
    }
  }

  void ReconnectLater() {
    RetryLater([this] {
      absl::StatusOr<UniqueFd> fd = ConnectUnix(path_, ConnectMode::kNonBlocking);
      if (fd.ok()) {
        Connected(std::move(fd).value());
      } else {
        ReconnectLater();
      }
    });
  }

  void RetryLater(std::function<void()> attempt) {
    retry_timer_.expires_after(retry_delay_);
    retry_timer_.async_wait(
        [self = shared_from_this(), attempt = std::move(attempt)](const error_code& error) {
          if (!error && !self->ended_) attempt();
        });
  }

  void Connected(UniqueFd fd) {
    error_code error;
    peer_.assign(fd.get(), error);
    if (error) {
      Warn(absl::StrCat("can't serve a connection: ", error.message()));
      RetryLater([this] { NextPeer(); });
      return;
    }
    (void)fd.Release();
    ++session_;
    read_waits_ = false;
    write_waits_ = false;
    end_of_input_ = false;
    {
      std::lock_guard lock(output_mutex_);
      status_.connected = true;
      ++status_.connections;
      writing_ = true;
      const uint64_t oldest = ring_.begin();
      if (listens_) {
        sent_ = ring_.end() - std::min<uint64_t>(ring_.end(), kReplayBytes);
      } else if (sent_ < oldest) {
        sent_ = oldest;
      }
    }
    log_.Log(LogLevel::kInfo, kComponent, absl::StrCat(name_, ": connected through ", path_));
    WatchForHangup();
    ReadWhenReady();
    WriteOutput();
  }

  void Disconnect(const std::string& why) {
    error_code ignored;
    peer_.close(ignored);
    output_timer_.cancel();
    ++session_;
    {
      std::lock_guard lock(output_mutex_);
      status_.connected = false;
      writing_ = false;
    }
    log_.Log(LogLevel::kInfo, kComponent, absl::StrCat(name_, ": ", why));
    NextPeer();
  }

  void NextPeer() {
    if (listens_) {
      Accept();
    } else {
      ReconnectLater();
    }
  }

  // Calls `handler` when the peer is ready for `what`, unless another peer has taken its place.
  void WhenReady(Descriptor::wait_type what, void (Connection::*handler)()) {
    peer_.async_wait(
        what, [self = shared_from_this(), handler, session = session_](const error_code& error) {
          if (!error && !self->ended_ && session == self->session_) (self.get()->*handler)();
        });
  }

  // A peer that closes its end is noticed even while we don't read from it.
  void WatchForHangup() { WhenReady(Descriptor::wait_error, &Connection::PeerHungUp); }

  void PeerHungUp() {
    pollfd poll = {.fd = peer_.native_handle(), .events = 0, .revents = 0};
    if (::poll(&poll, 1, 0) < 0 || (poll.revents & (POLLHUP | POLLERR)) == 0) {
      // Only urgent data gets here otherwise; it would wake us for as long as it isn't read.
      Disconnect("peer sent out-of-band data, disconnected");
      return;
    }
    ReadWhatIsLeft();
    Disconnect("peer left");
  }

  // What a peer sent before it closed its end.
  void ReadWhatIsLeft() {
    while (ReadOnce() > 0) {
      if (received_bytes() >= kMaxInputBytes) {
        Warn("peer left with more input than the guest was ready for, cut");
        break;
      }
    }
    OfferInput();
  }

  // Appends to received_; like recv(2).
  ssize_t ReadOnce() {
    std::array<uint8_t, kReadBytes> bytes;
    const ssize_t size = ::recv(peer_.native_handle(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (size > 0) received_.insert(received_.end(), bytes.begin(), bytes.begin() + size);
    return size;
  }

  // Unless the guest hasn't taken yet what was read before.
  void ReadWhenReady() {
    if (!peer_.is_open() || read_waits_ || end_of_input_ || received_bytes() != 0) return;
    read_waits_ = true;
    WhenReady(Descriptor::wait_read, &Connection::ReadInput);
  }

  void ReadInput() {
    read_waits_ = false;
    const ssize_t size = ReadOnce();
    if (size > 0) {
      OfferInput();
    } else if (size == 0) {
      // It will send no more and may still listen, as `socat` and `nc -N` do.
      end_of_input_ = true;
    } else if (errno == EAGAIN || errno == EINTR) {
      ReadWhenReady();
    } else {
      Disconnect("peer left");
    }
  }

  void OfferInput() {
    if (ended_) return;
    size_t taken = 0;
    if (received_bytes() != 0) {
      std::lock_guard lock(port_mutex_);
      if (port_ == nullptr) return;
      taken = port_->Receive({&received_[received_start_], received_bytes()});
    }
    received_start_ += taken;
    if (received_bytes() == 0) {
      received_.clear();
      received_start_ = 0;
    }
    if (taken != 0) {
      std::lock_guard lock(output_mutex_);
      status_.bytes_to_guest += taken;
    }
    ReadWhenReady();
  }

  void WriteOutput() {
    // A wake-up from before this peer came.
    if (ended_ || !peer_.is_open() || write_waits_) return;
    for (int writes = 0; writes < kWritesPerTurn; ++writes) {
      const ssize_t size = WriteOnce();
      if (size == 0) {
        write_waits_ = true;
        output_timer_.expires_after(kOutputDelay);
        output_timer_.async_wait(
            [self = shared_from_this(), session = session_](const error_code& error) {
              if (!error && !self->ended_ && session == self->session_) self->LookForOutput();
            });
        return;
      }
      if (size < 0 && errno != EINTR) {
        if (errno == EAGAIN) break;
        ReadWhatIsLeft();
        Disconnect("peer left");
        return;
      }
    }
    // Through the reactor even if it could take more: others have their turn meanwhile.
    write_waits_ = true;
    WhenReady(Descriptor::wait_write, &Connection::WriteMore);
  }

  void WriteMore() {
    write_waits_ = false;
    WriteOutput();
  }

  void LookForOutput() {
    write_waits_ = false;
    {
      std::lock_guard lock(output_mutex_);
      if (sent_ == ring_.end()) {
        writing_ = false;
        return;
      }
    }
    WriteOutput();
  }

  // Like send(2); 0 when there is nothing to send.
  ssize_t WriteOnce() {
    std::array<uint8_t, kWriteBytes> bytes;
    size_t size = 0;
    uint64_t lost = 0;
    {
      std::lock_guard lock(output_mutex_);
      if (sent_ < ring_.begin()) {
        lost = ring_.begin() - sent_;
        sent_ = ring_.begin();
        status_.bytes_lost += lost;
      }
      size = ring_.CopyFrom(sent_, bytes);
    }
    if (lost != 0) Warn(absl::StrCat("peer is slow, ", lost, " bytes of output lost"));
    if (size == 0) return 0;
    const ssize_t written =
        ::send(peer_.native_handle(), bytes.data(), size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (written > 0) sent_ += static_cast<uint64_t>(written);
    return written;
  }

  [[nodiscard]] size_t received_bytes() const { return received_.size() - received_start_; }

  void Warn(const std::string& message) {
    log_.Log(LogLevel::kWarning, kComponent, absl::StrCat(name_, ": ", message));
  }

  EventLoop& loop_;
  const std::string name_;
  const std::string path_;
  const std::chrono::milliseconds retry_delay_;
  const bool listens_;
  LogLimiter log_;

  // Loop thread only, except before Start and in Shutdown's first part.
  UnixListener listener_;
  UniqueFd first_peer_;
  Descriptor acceptor_;
  Descriptor peer_;
  asio::steady_timer output_timer_;
  asio::steady_timer retry_timer_;
  bool ended_ = false;
  // Counts peers; handlers of an earlier one find it changed.
  uint64_t session_ = 0;
  // Handlers under way for this peer.
  bool read_waits_ = false;
  bool write_waits_ = false;
  bool end_of_input_ = false;
  // Read from a peer and not yet taken by the port; the first received_start_ bytes were.
  std::vector<uint8_t> received_;
  size_t received_start_ = 0;
  // Where in the guest's output the peer is.
  uint64_t sent_ = 0;

  mutable std::mutex output_mutex_;
  // Guarded by output_mutex_.
  OutputRing ring_{kBacklogBytes};
  SerialRelayStatus status_;
  // The loop is writing, or will look again by itself; nobody needs to wake it.
  bool writing_ = false;

  // Held during Receive, so that Attach(nullptr) can wait for it.
  std::mutex port_mutex_;
  SerialInput* port_ = nullptr;  // guarded by port_mutex_
};

absl::StatusOr<std::unique_ptr<SerialRelay>> SerialRelay::Create(EventLoop& loop,
                                                                 SerialRelayOptions options) {
  RETURN_IF_ERROR(ValidateSocketPath(options.socket_path));
  absl::Status raced;
  for (int races = 0; races < kMaxRaces; ++races) {
    UniqueFd peer;
    UnixListener listener;
    absl::StatusOr<UniqueFd> connected =
        ConnectUnix(options.socket_path, ConnectMode::kNonBlocking);
    if (connected.ok()) {
      peer = std::move(connected).value();
    } else if (!absl::IsUnavailable(connected.status())) {
      const bool may_listen =
          absl::IsNotFound(connected.status()) || absl::IsFailedPrecondition(connected.status());
      if (options.connect_only || !may_listen) return connected.status();
      absl::StatusOr<UnixListener> bound = UnixListener::Create(options.socket_path, kBacklog);
      if (absl::IsAborted(bound.status())) {
        raced = bound.status();
        // Who came first may be a system call from having the path, and want this processor for it.
        ::sched_yield();
        continue;
      }
      if (!bound.ok()) return bound.status();
      listener = std::move(bound).value();
    }
    auto connection = std::make_shared<Connection>(loop, std::move(options), std::move(listener));
    connection->Start(std::move(peer));
    return std::unique_ptr<SerialRelay>(new SerialRelay(std::move(connection)));
  }
  return absl::AlreadyExistsError(std::string(raced.message()));
}

SerialRelay::SerialRelay(std::shared_ptr<Connection> connection)
    : connection_(std::move(connection)) {}

SerialRelay::~SerialRelay() { connection_->Shutdown(); }

void SerialRelay::Transmit(std::span<const uint8_t> bytes) { connection_->Transmit(bytes); }

void SerialRelay::OnReceiveRoom() { connection_->OfferInputSoon(); }

void SerialRelay::Attach(SerialInput* input) { connection_->Attach(input); }

SerialRelayStatus SerialRelay::Status() const { return connection_->Status(); }

void SerialRelay::Inspect(inspect::Node& node) const {
  const SerialRelayStatus status = Status();
  node.Value("listening", status.listening);
  node.Value("connected", status.connected);
  node.Value("connections", status.connections);
  node.Value("bytes_from_guest", status.bytes_from_guest);
  node.Value("bytes_to_guest", status.bytes_to_guest);
  node.Value("bytes_lost", status.bytes_lost);
}

}  // namespace bothy::chipset
