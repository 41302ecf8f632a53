#include "ttrpc/server.h"

#include <google/protobuf/stubs/logging.h>
#include <sys/socket.h>

#include <asio/error_code.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <cerrno>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "support/log.h"
#include "support/status.h"
#include "ttrpc/loop_gate.h"
#include "ttrpc/server_session.h"

namespace bothy::ttrpc {
namespace {

constexpr std::string_view kComponent = "ttrpc";
constexpr size_t kReadSize = 64 << 10;
// How often one connection is read from before the others have their turn.
constexpr int kReadsPerTurn = 4;
constexpr int kAcceptsPerTurn = 16;
// A client that asked again so soon after its answer is taken to do so once more: the loop stays
// awake for it that long.
constexpr std::chrono::microseconds kSoon(100);
constexpr std::chrono::microseconds kStayAwake(50);
// After accept(2) ran out of descriptors or memory.
constexpr std::chrono::milliseconds kAcceptPause(100);

// Peers can make protobuf write a line a message: not more than the limiter lets through.
void LogProtobufMessage(google::protobuf::LogLevel level, const char* /*file*/, int /*line*/,
                        const std::string& message) {
  static LogLimiter* const limiter = new LogLimiter;
  const bool fatal = level == google::protobuf::LOGLEVEL_FATAL;
  limiter->Log(fatal ? LogLevel::kError : LogLevel::kWarning, "protobuf", message);
}

}  // namespace

class Connection;

class Server::Impl : public std::enable_shared_from_this<Server::Impl> {
 public:
  Impl(EventLoop& loop, ServerOptions options)
      : loop_(loop),
        options_(std::move(options)),
        gate_(std::make_shared<LoopGate>(loop)),
        read_buffer_(new char[kReadSize]) {}

  absl::Status Register(Service& service) {
    const auto [it, inserted] = services_.emplace(std::string(service.FullName()), &service);
    if (!inserted) {
      return absl::AlreadyExistsError(absl::StrCat("service ", it->first, " is registered"));
    }
    return absl::OkStatus();
  }

  absl::Status Listen(UniqueFd socket);
  absl::Status Adopt(UniqueFd socket);
  void StopAccepting() { listeners_.clear(); }
  void CloseWhenFlushed(std::chrono::milliseconds limit, std::function<void()> done);
  void Shutdown();
  void CloseGate() { gate_->Close(); }
  [[nodiscard]] size_t connections() const { return connections_.size(); }

  // For connections.
  EventLoop& loop() { return loop_; }
  const ServerOptions& options() const { return options_; }
  const std::shared_ptr<LoopGate>& gate() const { return gate_; }
  const ServiceTable& services() const { return services_; }
  // Shared by all connections: what one read doesn't consume, its session keeps.
  char* read_buffer() { return read_buffer_.get(); }
  LogLimiter& log() { return log_; }
  void Remove(const std::shared_ptr<Connection>& connection) {
    connections_.erase(connection);
    if (connections_.empty()) FinishDrain();
  }

 private:
  struct Listener {
    explicit Listener(asio::io_context& context) : descriptor(context), pause(context) {}
    asio::posix::stream_descriptor descriptor;
    asio::steady_timer pause;
  };

  void WaitForConnections(const std::shared_ptr<Listener>& listener);
  void AcceptSome(const std::shared_ptr<Listener>& listener);
  void StartDrain(std::chrono::milliseconds limit, std::function<void()> done);
  void FinishDrain();

  EventLoop& loop_;
  const ServerOptions options_;
  const std::shared_ptr<LoopGate> gate_;
  const std::unique_ptr<char[]> read_buffer_;
  ServiceTable services_;
  std::vector<std::shared_ptr<Listener>> listeners_;
  std::unordered_set<std::shared_ptr<Connection>> connections_;
  std::vector<std::function<void()>> drained_;  // run when the last connection is gone
  std::optional<asio::steady_timer> drain_limit_;
  LogLimiter log_;
};

// One connected socket and its session. Kept alive by the handlers that wait on its behalf.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Server::Impl& server, const PeerCredentials& peer, absl::Status refusal)
      : server_(&server),
        peer_(peer),
        refused_(!refusal.ok()),
        descriptor_(server.loop().context()),
        session_({.services = &server.services(),
                  .gate = server.gate(),
                  .peer = peer,
                  .refusal = std::move(refusal),
                  .max_message = server.options().max_message,
                  .max_calls_in_flight = server.options().max_calls_in_flight_per_connection,
                  .max_write_backlog_bytes = server.options().max_write_backlog_bytes,
                  .output_ready = [this] { Flush(); }}) {}

  absl::Status Start(UniqueFd socket) {
    asio::error_code error;
    descriptor_.assign(socket.get(), error);
    if (error) return ErrnoStatus(error.value(), "watch the connection");
    static_cast<void>(socket.Release());
    WaitReadable();
    if (refused_) ArmTimer(std::chrono::steady_clock::now() + server_->options().refusal_timeout);
    return absl::OkStatus();
  }

  // Closes once everything answered so far is sent; nothing more is read.
  void CloseWhenFlushed() {
    draining_ = true;
    Flush();
    if (session_.output().empty()) Close();
  }

  void Close() {
    if (server_ == nullptr) return;
    const auto self = shared_from_this();
    Server::Impl* const server = std::exchange(server_, nullptr);
    timer_.reset();
    asio::error_code ignored;
    descriptor_.close(ignored);
    session_.output().Clear();
    session_.Close();
    server->Remove(self);
  }

 private:
  void WaitReadable() {
    if (reading_ || draining_ || server_ == nullptr || !session_.WantsInput()) return;
    reading_ = true;
    descriptor_.async_wait(asio::posix::descriptor_base::wait_read,
                           [self = shared_from_this()](const asio::error_code& error) {
                             self->reading_ = false;
                             if (!error) self->OnReadable();
                           });
  }

  void WaitWritable() {
    if (writing_ || server_ == nullptr) return;
    writing_ = true;
    descriptor_.async_wait(asio::posix::descriptor_base::wait_write,
                           [self = shared_from_this()](const asio::error_code& error) {
                             self->writing_ = false;
                             if (!error) self->OnWritable();
                           });
  }

  void OnReadable() {
    const bool soon = std::chrono::steady_clock::now() - last_sent_ < kSoon;
    for (int i = 0; i < kReadsPerTurn && server_ != nullptr && !draining_ && session_.WantsInput();
         ++i) {
      char* const buffer = server_->read_buffer();
      const ssize_t size = ::recv(descriptor_.native_handle(), buffer, kReadSize, MSG_DONTWAIT);
      if (size < 0) {
        if (errno == EINTR) continue;
        if (errno == EAGAIN) break;
        return Close();
      }
      // As containerd's server has it: a client that sends no more has gone away.
      if (size == 0) return Close();
      const absl::Status status = session_.Receive({buffer, static_cast<size_t>(size)});
      if (server_ == nullptr) return;
      Flush();
      if (!status.ok()) return EndWith(status);
      if (static_cast<size_t>(size) < kReadSize) break;
    }
    if (soon && server_ != nullptr) server_->loop().StayAwake(kStayAwake);
    AfterWork();
  }

  void OnWritable() {
    if (server_ == nullptr) return;
    Flush();
    AfterWork();
  }

  // Takes up held-back input if the client has caught up, and arms what has to be waited for.
  void AfterWork() {
    while (server_ != nullptr && !draining_ && session_.CanResume()) {
      const absl::Status status = session_.Resume();
      if (server_ == nullptr) return;
      Flush();
      if (!status.ok()) return EndWith(status);
    }
    if (server_ == nullptr) return;
    if (draining_ && session_.output().empty()) return Close();
    if (const auto next = session_.NextDeadline()) ArmTimer(*next);
    WaitReadable();
  }

  // Sends what can be sent now.
  void Flush() {
    if (server_ == nullptr || broken_) return;
    ByteQueue& output = session_.output();
    while (!output.empty()) {
      const ssize_t sent = ::send(descriptor_.native_handle(), output.data(), output.size(),
                                  MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent >= 0) {
        output.Consume(static_cast<size_t>(sent));
        last_sent_ = std::chrono::steady_clock::now();
      } else if (errno == EAGAIN) {
        return WaitWritable();
      } else if (errno != EINTR) {
        // The caller may be a method of a service: cancellation must not run under its feet.
        broken_ = true;
        return server_->loop().Post([self = shared_from_this()] { self->Close(); });
      }
    }
  }

  // The session can't go on; what it said last has been sent if the peer reads at all.
  void EndWith(const absl::Status& status) {
    server_->log().Log(LogLevel::kWarning, kComponent,
                       absl::StrCat("closing a connection of pid ", peer_.pid, ", uid ", peer_.uid,
                                    ": ", status.ToString()));
    Close();
  }

  void ArmTimer(ServerCall::TimePoint when) {
    if (timer_ && timer_armed_ && timer_->expiry() <= when) return;
    if (!timer_) timer_.emplace(server_->loop().context());
    timer_armed_ = true;
    timer_->expires_at(when);
    timer_->async_wait([self = shared_from_this()](const asio::error_code& error) {
      if (error || self->server_ == nullptr) return;
      self->timer_armed_ = false;
      if (self->refused_) return self->Close();
      self->session_.ExpireDeadlines();
      self->AfterWork();
    });
  }

  Server::Impl* server_;  // null once closed
  const PeerCredentials peer_;
  const bool refused_;
  asio::posix::stream_descriptor descriptor_;
  ServerSession session_;
  bool reading_ = false;
  bool writing_ = false;
  bool draining_ = false;
  bool broken_ = false;  // sending failed; the closing is queued
  bool timer_armed_ = false;
  std::chrono::steady_clock::time_point last_sent_ = {};
  std::optional<asio::steady_timer> timer_;
};

absl::Status Server::Impl::Listen(UniqueFd socket) {
  int listening = 0;
  socklen_t size = sizeof listening;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0) {
    return ErrnoStatus(errno, "getsockopt(SO_ACCEPTCONN) of the listening socket");
  }
  if (listening == 0) return absl::InvalidArgumentError("the socket isn't listening");
  auto listener = std::make_shared<Listener>(loop_.context());
  asio::error_code error;
  listener->descriptor.assign(socket.get(), error);
  if (error) return ErrnoStatus(error.value(), "watch the listening socket");
  static_cast<void>(socket.Release());
  listener->descriptor.non_blocking(true, error);
  if (error) return ErrnoStatus(error.value(), "set O_NONBLOCK on the listening socket");
  listeners_.push_back(listener);
  WaitForConnections(listener);
  return absl::OkStatus();
}

void Server::Impl::WaitForConnections(const std::shared_ptr<Listener>& listener) {
  // Weak: StopAccepting drops the listener, which closes it.
  listener->descriptor.async_wait(
      asio::posix::descriptor_base::wait_read,
      [this, weak = std::weak_ptr(listener)](const asio::error_code& error) {
        if (error) return;
        if (const auto self = weak.lock()) AcceptSome(self);
      });
}

void Server::Impl::AcceptSome(const std::shared_ptr<Listener>& listener) {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    UniqueFd socket(::accept4(listener->descriptor.native_handle(), nullptr, nullptr,
                              SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.valid()) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EAGAIN) break;
      // Out of descriptors or memory: the connection waits in the backlog until some are free.
      log_.Log(LogLevel::kWarning, kComponent, ErrnoStatus(errno, "accept").ToString());
      listener->pause.expires_after(kAcceptPause);
      listener->pause.async_wait(
          [this, weak = std::weak_ptr(listener)](const asio::error_code& error) {
            if (error) return;
            if (const auto self = weak.lock()) WaitForConnections(self);
          });
      return;
    }
    if (const absl::Status status = Adopt(std::move(socket)); !status.ok()) {
      log_.Log(LogLevel::kWarning, kComponent,
               absl::StrCat("closing a new connection: ", status.ToString()));
    }
  }
  WaitForConnections(listener);
}

absl::Status Server::Impl::Adopt(UniqueFd socket) {
  if (connections_.size() >= options_.max_connections) {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than ", options_.max_connections, " connections"));
  }
  ucred credentials;
  socklen_t size = sizeof credentials;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return ErrnoStatus(errno, "getsockopt(SO_PEERCRED)");
  }
  const PeerCredentials peer{
      .uid = credentials.uid, .gid = credentials.gid, .pid = credentials.pid};
  absl::Status refusal = options_.authorize ? options_.authorize(peer) : absl::OkStatus();
  if (!refusal.ok()) {
    log_.Log(LogLevel::kWarning, kComponent,
             absl::StrCat("refusing pid ", peer.pid, ", uid ", peer.uid, ": ", refusal.ToString()));
  }
  const auto connection = std::make_shared<Connection>(*this, peer, std::move(refusal));
  RETURN_IF_ERROR(connection->Start(std::move(socket)));
  connections_.insert(connection);
  return absl::OkStatus();
}

void Server::Impl::CloseWhenFlushed(std::chrono::milliseconds limit, std::function<void()> done) {
  StopAccepting();
  // Queued behind the answers that other threads have given already.
  gate_->Post([self = shared_from_this(), limit, done = std::move(done)]() mutable {
    self->StartDrain(limit, std::move(done));
  });
}

void Server::Impl::StartDrain(std::chrono::milliseconds limit, std::function<void()> done) {
  drained_.push_back(std::move(done));
  const std::vector<std::shared_ptr<Connection>> all(connections_.begin(), connections_.end());
  for (const auto& connection : all) connection->CloseWhenFlushed();
  if (connections_.empty()) return FinishDrain();
  drain_limit_.emplace(loop_.context(), limit);
  drain_limit_->async_wait([weak = weak_from_this()](const asio::error_code& error) {
    if (error) return;
    if (const auto self = weak.lock()) self->Shutdown();
  });
}

void Server::Impl::FinishDrain() {
  drain_limit_.reset();
  for (auto& done : std::exchange(drained_, {})) done();
}

void Server::Impl::Shutdown() {
  StopAccepting();
  const std::vector<std::shared_ptr<Connection>> all(connections_.begin(), connections_.end());
  for (const auto& connection : all) connection->Close();
}

absl::StatusOr<std::unique_ptr<Server>> Server::Create(EventLoop& loop, ServerOptions options) {
  if (options.max_message == 0 || options.max_message > kMaxMessage) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_message: ", options.max_message, " is out of range 1..", kMaxMessage));
  }
  // What protobuf has to say of undecodable payloads is said in the answers, too.
  static std::once_flag once;
  std::call_once(once, [] { google::protobuf::SetLogHandler(&LogProtobufMessage); });
  return std::unique_ptr<Server>(new Server(std::make_shared<Impl>(loop, std::move(options))));
}

Server::Server(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Server::~Server() {
  impl_->Shutdown();
  impl_->CloseGate();
}

absl::Status Server::Register(Service& service) { return impl_->Register(service); }
absl::Status Server::Listen(UniqueFd socket) { return impl_->Listen(std::move(socket)); }
absl::Status Server::Adopt(UniqueFd socket) { return impl_->Adopt(std::move(socket)); }
void Server::StopAccepting() { impl_->StopAccepting(); }
void Server::CloseWhenFlushed(std::chrono::milliseconds limit, std::function<void()> done) {
  impl_->CloseWhenFlushed(limit, std::move(done));
}
void Server::Shutdown() { impl_->Shutdown(); }
size_t Server::connections() const { return impl_->connections(); }

}  // namespace bothy::ttrpc
