#include "sockets/connect_listener.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "sockets/connect_line.h"

namespace bothy::sockets {
namespace {

// Accepted in one turn of the loop.
constexpr int kAcceptsPerTurn = 64;

UniqueFd Spare() { return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

}  // namespace

absl::StatusOr<std::unique_ptr<ConnectListener>> ConnectListener::Create(const std::string& path,
                                                                         IoLoop& loop,
                                                                         OnConnect on_connect) {
  absl::StatusOr<UnixListener> listener = UnixListener::Create(path);
  if (absl::IsAborted(listener.status())) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": somebody listens there already; choose another path"));
  }
  if (!listener.ok()) return listener.status();
  return std::unique_ptr<ConnectListener>(
      new ConnectListener(loop, *std::move(listener), std::move(on_connect)));
}

ConnectListener::ConnectListener(IoLoop& loop, UnixListener listener, OnConnect on_connect)
    : loop_(loop),
      on_connect_(std::move(on_connect)),
      file_(listener.TakeFile()),
      socket_(listener.TakeSocket()),
      spare_(Spare()) {
  readiness_ = loop.WatchReadiness(socket_.get(), [this] { Accept(); }, {});
  readiness_->AwaitReadable();
}

ConnectListener::~ConnectListener() { file_.Remove(); }

bool ConnectListener::RefuseOne() {
  if (!spare_.valid()) return false;
  spare_.Reset();
  UniqueFd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC)).Reset();
  spare_ = Spare();
  ++refused_;
  return true;
}

void ConnectListener::Accept() {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    UniqueFd socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.valid()) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno != EAGAIN && RefuseOne()) continue;
      break;
    }
    ++accepted_;
    if (silent_.size() == kMostSilent) {
      silent_.pop_front();
      ++refused_;
    }
    const auto silent = silent_.insert(silent_.end(), Silent{.socket = std::move(socket)});
    silent->readiness =
        loop_.WatchReadiness(silent->socket.get(), [this, silent] { OnReadable(silent); }, {});
    silent->readiness->AwaitReadable();
  }
  readiness_->AwaitReadable();
}

void ConnectListener::OnReadable(std::list<Silent>::iterator silent) {
  // Looked at first: what is behind the line stays in the socket.
  std::array<char, kMostConnectLine> text{};
  const size_t before = silent->said.size();
  const int fd = silent->socket.get();
  const ssize_t there = ::recv(fd, text.data(), text.size() - before, MSG_PEEK | MSG_DONTWAIT);
  if (there < 0 && (errno == EAGAIN || errno == EINTR)) return silent->readiness->AwaitReadable();
  if (there <= 0) {
    silent_.erase(silent);
    return;
  }
  silent->said.append(text.data(), static_cast<size_t>(there));
  const auto parsed = ParseConnectLine(silent->said);
  const auto* const line = std::get_if<ConnectLine>(&parsed);
  if (line == nullptr && std::get<NoConnectLine>(parsed) == NoConnectLine::kMalformed) {
    ++malformed_;
    silent_.erase(silent);
    return;
  }
  const size_t taken = line != nullptr ? line->bytes - before : static_cast<size_t>(there);
  (void)::recv(fd, text.data(), taken, MSG_DONTWAIT);
  if (line == nullptr) return silent->readiness->AwaitReadable();
  silent->readiness.reset();
  UniqueFd socket = std::move(silent->socket);
  silent_.erase(silent);
  on_connect_(line->port, std::move(socket));
}

void ConnectListener::Inspect(inspect::Node& node) const {
  node.Value("accepted", accepted_);
  node.Value("silent", silent_.size());
  node.Value("malformed", malformed_);
  node.Value("refused", refused_);
}

}  // namespace bothy::sockets
