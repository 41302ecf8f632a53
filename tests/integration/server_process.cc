#include "tests/integration/server_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "support/check.h"

namespace bothy::integration {
namespace {

constexpr int kFirstPassedFd = 3;  // sd_listen_fds(3)

// In the child, between fork and exec.
[[noreturn]] void Become(const ServerOptions& options, const std::vector<char*>& arguments,
                         pid_t parent, int standard_output, int log) {
  // A test that is killed takes its servers with it.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(126);
  ::dup2(::open("/dev/null", O_RDONLY), STDIN_FILENO);
  ::dup2(standard_output, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  if (options.activation_socket >= 0) {
    if (options.activation_socket == kFirstPassedFd) {
      ::fcntl(kFirstPassedFd, F_SETFD, 0);
    } else {
      ::dup2(options.activation_socket, kFirstPassedFd);
    }
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    ::setenv("LISTEN_FDS", "1", 1);
  }
  ::execv(arguments[0], arguments.data());
  ::perror(arguments[0]);
  ::_exit(127);
}

}  // namespace

ServerProcess::ServerProcess(const ServerOptions& options) {
  std::vector<std::string> words = {options.program.empty() ? BOTHY_SERVER : options.program};
  if (!options.socket_path.empty()) {
    words.insert(words.end(), {"--ttrpc", options.socket_path});
  }
  words.insert(words.end(), options.arguments.begin(), options.arguments.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);

  int standard_output[2];
  CHECK(::pipe2(standard_output, O_CLOEXEC) == 0);
  standard_output_.Reset(standard_output[0]);
  const UniqueFd write_end(standard_output[1]);
  log_.Reset(::memfd_create("server-log", MFD_CLOEXEC));
  CHECK(log_.valid());
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  CHECK(pid_ >= 0);
  if (pid_ == 0) Become(options, arguments, parent, write_end.get(), log_.get());
}

ServerProcess::~ServerProcess() {
  if (status_.has_value()) return;
  Signal(SIGKILL);
  AwaitEnd();
}

std::string ServerProcess::AwaitReady() {
  std::string output;
  char buffer[256];
  for (ssize_t n; (n = ::read(standard_output_.get(), buffer, sizeof buffer)) > 0;) {
    output.append(buffer, static_cast<size_t>(n));
  }
  return output;
}

void ServerProcess::Signal(int signal) const {
  // Until it has been waited for the pid is no other process's.
  if (!status_.has_value()) ::kill(pid_, signal);
}

int ServerProcess::AwaitEnd() {
  if (!status_.has_value()) {
    int status = 0;
    CHECK(::waitpid(pid_, &status, 0) == pid_);
    status_ = status;
  }
  return *status_;
}

std::string ServerProcess::Log() const {
  std::string text;
  char buffer[4096];
  for (ssize_t n;
       (n = ::pread(log_.get(), buffer, sizeof buffer, static_cast<off_t>(text.size()))) > 0;) {
    text.append(buffer, static_cast<size_t>(n));
  }
  return text;
}

}  // namespace bothy::integration
