// ServerProcess: a real `bothy` as a child of the test.
//
//   ServerProcess server({.socket_path = folder / "vm.sock"});
//   server.AwaitReady();                      // end-of-file on its standard output
//   auto connection = ttrpc::Client::Connect(folder / "vm.sock");
//
// The process ends with the object, by SIGKILL if it must. One thread.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "support/unique_fd.h"

namespace bothy::integration {

struct ServerOptions {
  std::string socket_path = {};  // --ttrpc; empty: not given
  std::vector<std::string> arguments = {};
  // A listening socket that the server gets as systemd would pass it (LISTEN_FDS).
  int activation_socket = -1;
  // The program that is started: the server, or one that starts it; `arguments` follow.
  std::string program = {};  // empty: the server
};

class ServerProcess {
 public:
  explicit ServerProcess(const ServerOptions& options);
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  // Reads standard output to its end, and returns what was there: nothing, from a healthy server.
  // A server that ends before it is ready closes it, too.
  std::string AwaitReady();

  [[nodiscard]] pid_t pid() const { return pid_; }
  void Signal(int signal) const;
  // Waits for the process's end; its status as waitpid(2) has it. May be called again.
  int AwaitEnd();
  // What it has written to standard error so far.
  [[nodiscard]] std::string Log() const;

 private:
  pid_t pid_ = -1;
  std::optional<int> status_;
  UniqueFd standard_output_;
  UniqueFd log_;
};

}  // namespace bothy::integration
