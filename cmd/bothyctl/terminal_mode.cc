#include "cmd/bothyctl/terminal_mode.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "cmd/bothyctl/cleanup_process.h"
#include "support/check.h"

namespace bothy::bothyctl {
namespace {

// What handlers need; written before `raw` becomes true.
struct {
  std::atomic<bool> raw = false;
  int fd = -1;
  termios before = {};
  termios raw_mode = {};
} g_terminal;

constexpr int kFatalSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS, SIGTRAP};

bool SameMode(const termios& a, const termios& b) {
  return a.c_iflag == b.c_iflag && a.c_oflag == b.c_oflag && a.c_cflag == b.c_cflag &&
         a.c_lflag == b.c_lflag && std::memcmp(a.c_cc, b.c_cc, sizeof a.c_cc) == 0;
}

void PutBack() {
  if (!g_terminal.raw.exchange(false)) return;
  // A background job that sets the terminal's mode is stopped, unless it blocks this.
  sigset_t background;
  sigset_t old;
  ::sigemptyset(&background);
  ::sigaddset(&background, SIGTTOU);
  ::pthread_sigmask(SIG_BLOCK, &background, &old);
  RestoreIfStill(g_terminal.fd, g_terminal.before, g_terminal.raw_mode);
  ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

void OnFatalSignal(int signal) {
  PutBack();
  // Pending until this returns, and fatal then: SA_RESETHAND.
  ::raise(signal);
}

void InstallHandlersOnce() {
  static bool installed = false;
  if (installed) return;
  installed = true;
  CHECK(std::atexit(PutBack) == 0);
  struct sigaction action = {};
  action.sa_handler = OnFatalSignal;
  action.sa_flags = SA_RESETHAND;
  for (const int signal : kFatalSignals) ::sigaction(signal, &action, nullptr);
}

}  // namespace

TerminalMode::TerminalMode(int fd, CleanupProcess& cleanup) : fd_(fd), cleanup_(cleanup) {
  CHECK(!g_terminal.raw.load());
  g_terminal.fd = fd;
  InstallHandlersOnce();
}

bool TerminalMode::Usable(int fd) { return ::isatty(fd) == 1 && ::tcgetpgrp(fd) == ::getpgrp(); }

absl::Status TerminalMode::EnterRaw() {
  if (raw_) return absl::OkStatus();
  termios before;
  if (::tcgetattr(fd_, &before) != 0) return ErrnoStatus(errno, "read the terminal's mode");
  termios raw = before;
  ::cfmakeraw(&raw);
  raw.c_cc[VMIN] = 1;
  raw.c_cc[VTIME] = 0;
  Remember(before, raw);
  raw_ = true;
  // What is still on its way out was written for the old mode.
  if (::tcsetattr(fd_, TCSADRAIN, &raw) != 0) {
    absl::Status status = ErrnoStatus(errno, "set the terminal's mode");
    Restore();
    return status;
  }
  // Not every terminal takes every bit.
  if (::tcgetattr(fd_, &raw) == 0) Remember(before, raw);
  return absl::OkStatus();
}

void TerminalMode::Remember(const termios& before, const termios& raw) {
  g_terminal.raw.store(false);
  g_terminal.before = before;
  g_terminal.raw_mode = raw;
  g_terminal.raw.store(true);
  cleanup_.RememberTerminal(before, raw);
}

void TerminalMode::RawAgain() {
  termios now;
  if (!raw_ || !Usable(fd_) || ::tcgetattr(fd_, &now) != 0) return;
  if (SameMode(now, g_terminal.raw_mode)) return;
  raw_ = false;
  // It was a terminal a moment ago; if it isn't any more, input ends, too.
  (void)EnterRaw();
}

void TerminalMode::Restore() {
  if (!raw_) return;
  raw_ = false;
  // Not TCSADRAIN: a terminal that takes no output must not keep us.
  PutBack();
  cleanup_.ForgetTerminal();
}

void RestoreIfStill(int fd, const termios& before, const termios& raw) {
  termios now;
  if (::tcgetattr(fd, &now) != 0) return;
  if (SameMode(now, raw)) ::tcsetattr(fd, TCSANOW, &before);
}

}  // namespace bothy::bothyctl
