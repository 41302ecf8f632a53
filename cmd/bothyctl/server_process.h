// ServerProcess: a `bothy` of our own, as a child that doesn't outlive us.
//
// Runs in a session of its own, so that the terminal's Ctrl-C reaches bothyctl alone, with signals
// as a program expects them. Not thread-safe.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy::bothyctl {

struct ServerProcessOptions {
  std::string program;  // a path, or a name to look for in $PATH
  std::string socket_path;
  std::string log_level;  // as the server's --log-level takes it; empty: its default
  std::string log_file;   // its standard error is appended there; empty: it comes out of log_fd()
};

// The server to start: `wanted` if not empty, else the `bothy` beside this program's own file, else
// "bothy" from $PATH.
std::string FindServerProgram(const std::string& wanted);

class ServerProcess {
 public:
  // Errors are the system's, for the program or the log file.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Start(const ServerProcessOptions& options);
  // Kills it if it still runs.
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  // Its standard output: end-of-file means that it takes connections, or has ended. Like log_fd, it
  // doesn't block.
  [[nodiscard]] int ready_fd() const { return ready_.get(); }
  // Its standard error; negative if that goes to a file.
  [[nodiscard]] int log_fd() const { return log_.get(); }
  // Readable once it has ended.
  [[nodiscard]] int exit_fd() const { return pidfd_.get(); }

  void Kill();
  // Waits for its end. "exited with status 1" or "was killed by signal 9 (Killed)"; the same each
  // time.
  const std::string& Reap();
  // Whether it exited with status 0. After Reap.
  [[nodiscard]] bool succeeded() const { return reaped_ && wait_status_ == 0; }

 private:
  ServerProcess(pid_t pid, UniqueFd pidfd, UniqueFd ready, UniqueFd log);

  const pid_t pid_;
  const UniqueFd pidfd_;
  const UniqueFd ready_;
  const UniqueFd log_;
  bool reaped_ = false;
  int wait_status_ = 0;
  std::string end_;
};

}  // namespace bothy::bothyctl
