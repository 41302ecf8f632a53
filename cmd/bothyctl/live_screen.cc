#include "cmd/bothyctl/live_screen.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "cmd/bothyctl/call.h"
#include "cmd/bothyctl/exit_code.h"
#include "cmd/bothyctl/output.h"
#include "support/check.h"

namespace bothy::bothyctl {
namespace {

// A screen of our own, without a cursor; and back.
constexpr char kEnterScreen[] = "\x1b[?1049h\x1b[?25l";
constexpr char kLeaveScreen[] = "\x1b[?25h\x1b[?1049l";
// To the top, and behind the last line nothing of before.
constexpr char kHome[] = "\x1b[H";
constexpr char kClearToEndOfLine[] = "\x1b[K";
constexpr char kClearBelow[] = "\x1b[J";

}  // namespace

LiveScreen::LiveScreen(PollLoop& loop) : loop_(loop) {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGCONT}) {
    ::sigaddset(&signals, signal);
  }
  CHECK(::pthread_sigmask(SIG_BLOCK, &signals, nullptr) == 0);
  signals_.Reset(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  CHECK(signals_.valid());
  loop_.Watch(signals_.get(), POLLIN, [this] { OnSignal(); });
}

LiveScreen::~LiveScreen() {
  Leave();
  loop_.Unwatch(signals_.get());
}

bool LiveScreen::Begin(Where where) {
  if (where == Where::kBelow || ::isatty(STDOUT_FILENO) == 0 ||
      !TerminalMode::Usable(STDIN_FILENO)) {
    return true;
  }
  absl::StatusOr<std::unique_ptr<CleanupProcess>> cleanup = CleanupProcess::Start("", STDIN_FILENO);
  if (!cleanup.ok()) return Tell("terminal", cleanup.status()) == kExitOk;
  cleanup_ = *std::move(cleanup);
  terminal_ = std::make_unique<TerminalMode>(STDIN_FILENO, *cleanup_);
  if (const absl::Status raw = terminal_->EnterRaw(); !raw.ok()) {
    return Tell("terminal", raw) == kExitOk;
  }
  loop_.Watch(STDIN_FILENO, POLLIN, [this] { OnKeys(); });
  on_terminal_ = true;
  return Print(kEnterScreen);
}

void LiveScreen::Leave() {
  if (!std::exchange(on_terminal_, false)) return;
  (void)Print(kLeaveScreen);
  loop_.Unwatch(STDIN_FILENO);
  terminal_->Restore();
}

ScreenSize LiveScreen::size() const {
  if (!on_terminal_) return {};
  winsize window{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_col == 0) return {};
  return {.columns = window.ws_col, .rows = window.ws_row};
}

bool LiveScreen::Show(std::string_view text) {
  if (!on_terminal_) return Print(text);
  if (text.ends_with('\n')) text.remove_suffix(1);  // on the last row it would scroll
  return Print(absl::StrCat(
      kHome,
      absl::StrReplaceAll(std::string(text), {{"\n", absl::StrCat(kClearToEndOfLine, "\r\n")}}),
      kClearToEndOfLine, kClearBelow));
}

bool LiveScreen::Await(const std::function<bool()>& done) {
  loop_.RunUntil([&] { return ended() || done(); });
  return !ended();
}

bool LiveScreen::Rest(PollLoop::Clock::time_point time, const std::function<bool()>& again) {
  while (loop_.RunUntil([this] { return ended() || (on_terminal_ && resized_); }, time)) {
    resized_ = false;
    if (ended() || !again()) return false;
  }
  return true;
}

int LiveScreen::ExitStatus() const { return signal_ == 0 ? kExitOk : kExitSignal + signal_; }

void LiveScreen::OnSignal() {
  signalfd_siginfo info;
  while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGWINCH || info.ssi_signo == SIGCONT) {
      resized_ = true;
      if (terminal_) terminal_->RawAgain();
    } else if (signal_ == 0) {
      signal_ = static_cast<int>(info.ssi_signo);
    }
  }
}

void LiveScreen::OnKeys() {
  constexpr char kCtrlC = 3;
  constexpr char kCtrlD = 4;
  char keys[64];
  const ssize_t size = ::read(STDIN_FILENO, keys, sizeof keys);
  if (size == 0 || (size < 0 && errno != EINTR && errno != EAGAIN)) quits_ = true;
  for (ssize_t i = 0; i < size; ++i) {
    if (keys[i] == 'q' || keys[i] == 'Q' || keys[i] == kCtrlC || keys[i] == kCtrlD) quits_ = true;
  }
}

}  // namespace bothy::bothyctl
