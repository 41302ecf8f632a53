// TerminalMode: a terminal in raw mode, put back however this process ends.
//
// Put back by Restore, the destructor, exit(3), the handlers of fatal signals, and after SIGKILL by
// the CleanupProcess. At most one object at a time. Main thread only.
#pragma once

#include <termios.h>

#include "support/status.h"

namespace bothy::bothyctl {

class CleanupProcess;

class TerminalMode {
 public:
  // `fd` is a terminal; `cleanup` outlives this.
  TerminalMode(int fd, CleanupProcess& cleanup);
  ~TerminalMode() { Restore(); }
  TerminalMode(const TerminalMode&) = delete;
  TerminalMode& operator=(const TerminalMode&) = delete;

  // Whether `fd` is a terminal that this process may read and set: it isn't a background job's.
  [[nodiscard]] static bool Usable(int fd);

  // Every key goes through as it is typed; output goes through as it is written, so that a new line
  // needs "\r\n". What it was before is remembered each time.
  absl::Status EnterRaw();
  // If it is to be raw, and somebody changed it, as a shell does while this process is stopped: raw
  // again.
  void RawAgain();
  // Back to what it was, if it is raw. Input that nobody has read stays.
  void Restore();
  [[nodiscard]] bool raw() const { return raw_; }

 private:
  void Remember(const termios& before, const termios& raw);

  const int fd_;
  CleanupProcess& cleanup_;
  bool raw_ = false;
};

// Puts the terminal from `raw` back to `before`, unless somebody else has changed it since.
// Async-signal-safe.
void RestoreIfStill(int fd, const termios& before, const termios& raw);

}  // namespace bothy::bothyctl
