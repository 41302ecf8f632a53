#include "metrics/endpoint.h"

#include <sys/socket.h>

#include <algorithm>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <cerrno>
#include <memory>
#include <string>
#include <system_error>
#include <unordered_set>
#include <utility>
#include <vector>

#include "metrics/exposition.h"
#include "metrics/http_connection.h"
#include "support/event_loop.h"
#include "support/log.h"
#include "ttrpc/loop_gate.h"

namespace bothy::metrics {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kAcceptPause{100};

}  // namespace

// All of it on the loop's thread, but construction and Start's caller.
class Endpoint::Impl {
 public:
  Impl(ListeningSocket socket, Ask ask, Limits limits)
      : limits_(limits),
        ask_(std::move(ask)),
        file_(std::move(socket.file)),
        thread_(std::make_unique<LoopThread>("metrics")),
        gate_(std::make_shared<ttrpc::LoopGate>(thread_->loop())),
        listener_(thread_->loop().context()),
        pause_(thread_->loop().context()),
        next_look_(thread_->loop().context()) {
    listener_.assign(socket.fd.get());
    static_cast<void>(socket.fd.Release());
    gate_->Post([this] { WaitForConnections(); });
  }
  ~Impl() {
    file_.Remove();
    gate_->Close();
    thread_->loop().PostAndWait([this] {
      const auto connections = connections_;
      for (const auto& connection : connections) connection->Close();
      waiting_.clear();
      looked_for_.clear();
      asio::error_code ignored;
      listener_.close(ignored);
      pause_.cancel();
      next_look_.cancel();
    });
    // Behind the handlers that this has cancelled.
    thread_->loop().PostAndWait([] {});
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

 private:
  using Connection = std::shared_ptr<HttpConnection>;

  void WaitForConnections() {
    listener_.async_wait(asio::posix::descriptor_base::wait_read,
                         [this](const asio::error_code& error) {
                           if (!error) Accept();
                         });
  }

  void Accept() {
    UniqueFd socket(
        ::accept4(listener_.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
      if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return WaitForConnections();
      // Out of descriptors or memory: the connection waits in the backlog until some are free.
      log_.Log(LogLevel::kWarning, "metrics", ErrnoStatus(errno, "accept").ToString());
      pause_.expires_after(kAcceptPause);
      return pause_.async_wait([this](const asio::error_code& error) {
        if (!error) WaitForConnections();
      });
    }
    if (connections_.size() >= limits_.connections) {
      const Connection silent = *std::min_element(connections_.begin(), connections_.end(),
                                                  [](const Connection& a, const Connection& b) {
                                                    return a->last_active() < b->last_active();
                                                  });
      silent->Close();
    }
    const auto connection = std::make_shared<HttpConnection>(
        thread_->loop().context(),
        HttpConnection::Options{
            .exchange = limits_.exchange,
            .idle = limits_.idle,
            .wants_metrics =
                [this](const Connection& who) {
                  waiting_.push_back(who);
                  LookSoon();
                },
            .closed = [this](const Connection& who) { connections_.erase(who); }});
    connections_.insert(connection);
    connection->Start(std::move(socket));
    WaitForConnections();
  }

  // One look at a time, not too soon after the one before.
  void LookSoon() {
    if (looking_ || waiting_.empty()) return;
    looking_ = true;
    next_look_.expires_at(looked_at_ + limits_.between_looks);
    next_look_.async_wait([this](const asio::error_code& error) {
      if (error) return;
      looked_at_ = Clock::now();
      looked_for_ = std::exchange(waiting_, {});
      ask_([this, gate = gate_](absl::StatusOr<inspect::Value> tree) {
        gate->Post([this, tree = std::move(tree)] { Answer(tree); });
      });
    });
  }

  void Answer(const absl::StatusOr<inspect::Value>& tree) {
    looking_ = false;
    const std::string page = tree.ok() ? Exposition(*tree) : "";
    for (const Connection& connection : std::exchange(looked_for_, {})) {
      if (tree.ok()) {
        connection->AnswerMetrics(page);
      } else {
        connection->AnswerUnavailable(std::string(tree.status().message()));
      }
    }
    LookSoon();
  }

  const Limits limits_;
  const Ask ask_;
  SocketFile file_;
  LogLimiter log_;
  bool looking_ = false;
  Clock::time_point looked_at_;
  const std::unique_ptr<LoopThread> thread_;
  const std::shared_ptr<ttrpc::LoopGate> gate_;
  std::unordered_set<Connection> connections_;
  std::vector<Connection> waiting_;     // for the next look
  std::vector<Connection> looked_for_;  // by the one under way
  asio::posix::stream_descriptor listener_;
  asio::steady_timer pause_;
  asio::steady_timer next_look_;
};

Endpoint::Endpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Endpoint::~Endpoint() = default;

absl::StatusOr<std::unique_ptr<Endpoint>> Endpoint::Create(ListeningSocket socket, Ask ask,
                                                           Limits limits) {
  try {
    return std::unique_ptr<Endpoint>(
        new Endpoint(std::make_unique<Impl>(std::move(socket), std::move(ask), limits)));
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(std::string("metrics: ") + error.what());
  }
}

}  // namespace bothy::metrics
