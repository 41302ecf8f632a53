// CleanupProcess: a small child that waits for bothyctl to end and then does what bothyctl can't do
// when it is killed with SIGKILL: puts the terminal back and removes the private folder.
//
// It lives in a session of its own, so neither the terminal's keys nor its hang-up reach it. In an
// orderly end it has nothing left to do.
#pragma once

#include <sys/types.h>
#include <termios.h>

#include <memory>
#include <string>

#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy::bothyctl {

class CleanupProcess {
 public:
  // Forks. Only while the process has one thread. `terminal` is the descriptor that RawMode is
  // about, or negative.
  static absl::StatusOr<std::unique_ptr<CleanupProcess>> Start(const std::string& folder,
                                                               int terminal);
  // Lets it end, and waits for that.
  ~CleanupProcess();
  CleanupProcess(const CleanupProcess&) = delete;
  CleanupProcess& operator=(const CleanupProcess&) = delete;

  // The terminal is about to go from `before` to `raw`: if it is still like that when bothyctl has
  // ended, it becomes `before` again.
  void RememberTerminal(const termios& before, const termios& raw);
  // The terminal has been put back.
  void ForgetTerminal();

 private:
  struct Memory;  // shared with the child
  CleanupProcess(pid_t child, UniqueFd alive, Memory* memory);

  const pid_t child_;
  UniqueFd alive_;  // the child reads the other end: end-of-file tells it
  Memory* const memory_;
};

}  // namespace bothy::bothyctl
