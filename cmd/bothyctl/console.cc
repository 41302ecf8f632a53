#include "cmd/bothyctl/console.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bothy::bothyctl {
namespace {

constexpr size_t kReadSize = 64 << 10;
// A turn of the loop; a guest that never stops printing mustn't keep it from keys and signals.
constexpr int kReadsPerTurn = 16;

}  // namespace

Console::Console(PollLoop& loop, ConsoleOptions options)
    : loop_(loop),
      options_(std::move(options)),
      output_is_terminal_(::isatty(options_.output) == 1),
      escape_(options_.keys ? options_.escape_key : std::nullopt),
      buffer_(new char[kReadSize]),
      self_(std::make_shared<Console*>(this)),
      writer_(options_.output, [&loop = loop_, weak = std::weak_ptr(self_)] {
        loop.Post([weak] {
          if (const auto self = weak.lock()) (*self)->OnWritten();
        });
      }) {}

Console::~Console() {
  StopInput();
  if (listener_) loop_.Unwatch(listener_.get());
  if (socket_) loop_.Unwatch(socket_.get());
}

void Console::Accept(UniqueFd listener) {
  listener_ = std::move(listener);
  loop_.Watch(listener_.get(), POLLIN, [this] { AcceptIfThere(); });
}

void Console::AcceptIfThere() {
  socket_.Reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket_) return;
  loop_.Unwatch(listener_.get());
  listener_.Reset();
  FlushInput();
}

void Console::StartInput() {
  reading_input_ = true;
  UpdateWatches();
}

void Console::StopInput() {
  reading_input_ = false;
  UpdateWatches();
}

void Console::OnInput() {
  char typed[4096];
  const ssize_t size = ::read(options_.input, typed, sizeof typed);
  if (size < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (size <= 0) {
    // The guest sees no end: it is as if nobody typed any more.
    input_ended_ = true;
    UpdateWatches();
    return;
  }
  Typed(std::string_view(typed, static_cast<size_t>(size)));
}

void Console::Typed(std::string_view typed) {
  while (!typed.empty()) {
    const EscapeKey::Step step = escape_.Take(&typed);
    SendToGuest(step.for_guest);
    if (step.command) options_.on_command(*step.command);
  }
}

void Console::SendToGuest(std::string_view bytes) {
  if (ended_ || bytes.empty()) return;
  if (options_.keys && to_guest_.size() + bytes.size() > kMaxInput) {
    // The guest takes nothing. Keys must still be read, or the escape key would be dead, too.
    writer_.Write("\a");
    return;
  }
  to_guest_ += bytes;
  FlushInput();
}

void Console::FlushInput() {
  while (socket_ && !to_guest_.empty()) {
    const ssize_t size = ::send(socket_.get(), to_guest_.data(), to_guest_.size(), MSG_NOSIGNAL);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno != EAGAIN) to_guest_.clear();  // its end is seen by reading
    if (size < 0) break;
    to_guest_.erase(0, static_cast<size_t>(size));
  }
  UpdateWatches();
}

void Console::OnSocket() {
  if (!to_guest_.empty()) FlushInput();
  if (!held_) ReadAvailable();
}

void Console::ReadAvailable() {
  if (listener_) AcceptIfThere();
  for (int reads = 0; socket_ && reads < kReadsPerTurn; ++reads) {
    full_ = writer_.backlog() >= kMaxBacklog;
    if (full_) {
      writer_.NotifyAt(kMaxBacklog / 2);
      break;
    }
    const ssize_t size = ::recv(socket_.get(), buffer_.get(), kReadSize, MSG_DONTWAIT);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) break;
    if (size <= 0) {
      loop_.Unwatch(socket_.get());
      socket_.Reset();
      ended_ = true;
      to_guest_.clear();
      break;
    }
    const std::string_view bytes(buffer_.get(), static_cast<size_t>(size));
    received_ += bytes.size();
    at_line_start_ = bytes.back() == '\n';
    writer_.Write(bytes);
    options_.on_output(bytes);
  }
  UpdateWatches();
}

void Console::OnWritten() {
  if (full_) ReadAvailable();
  // More may have been queued since the writer told of its progress.
  if (wake_when_flushed_) WakeWhenFlushed();
}

void Console::WakeWhenFlushed() {
  wake_when_flushed_ = !flushed();
  if (wake_when_flushed_) writer_.NotifyAt(0);
}

void Console::HoldOutput(bool hold) {
  held_ = hold;
  UpdateWatches();
}

void Console::UpdateWatches() {
  const bool room = options_.keys || to_guest_.size() < kMaxInput;
  if (reading_input_ && !input_ended_ && room) {
    loop_.Watch(options_.input, POLLIN, [this] { OnInput(); });
  } else {
    loop_.Unwatch(options_.input);
  }
  if (!socket_) return;
  const int events = (full_ || held_ ? 0 : POLLIN) | (to_guest_.empty() ? 0 : POLLOUT);
  if (events != 0) {
    loop_.Watch(socket_.get(), static_cast<short>(events), [this] { OnSocket(); });
  } else {
    // Watched for nothing, a hang-up would be reported for ever.
    loop_.Unwatch(socket_.get());
  }
}

void Console::Notice(std::string_view text) {
  const std::string_view newline = options_.keys ? "\r\n" : "\n";
  if (!output_is_terminal_) {
    std::fprintf(stderr, "%s%s", std::string(text).c_str(), std::string(newline).c_str());
    return;
  }
  writer_.Write(absl::StrCat(std::string(at_line_start_ ? "" : newline), std::string(text),
                             std::string(newline)));
  at_line_start_ = true;
}

void Console::Log(std::string_view text) {
  if (::isatty(STDERR_FILENO) == 1) {
    Notice(text);
  } else {
    std::fprintf(stderr, "%s\n", std::string(text).c_str());
  }
}

}  // namespace bothy::bothyctl
