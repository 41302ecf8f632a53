#include "cmd/bothyctl/server_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"

namespace bothy::bothyctl {
namespace {

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};

absl::StatusOr<Pipe> MakePipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  // Only our end: each end has a description of its own.
  ::fcntl(fds[0], F_SETFL, O_NONBLOCK);
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

std::vector<std::string> Arguments(const ServerProcessOptions& options) {
  std::vector<std::string> arguments = {options.program, "--ttrpc", options.socket_path,
                                        "--die-with-parent"};
  if (!options.log_level.empty()) {
    arguments.insert(arguments.end(), {"--log-level", options.log_level});
  }
  return arguments;
}

}  // namespace

std::string FindServerProgram(const std::string& wanted) {
  if (!wanted.empty()) return wanted;
  std::array<char, PATH_MAX> self;
  const ssize_t size = ::readlink("/proc/self/exe", self.data(), self.size());
  if (size > 0) {
    const std::string path(self.data(), static_cast<size_t>(size));
    std::string beside = absl::StrCat(path.substr(0, path.rfind('/')), "/bothy");
    if (::access(beside.c_str(), X_OK) == 0) return beside;
  }
  return "bothy";
}

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Start(
    const ServerProcessOptions& options) {
  ASSIGN_OR_RETURN(Pipe ready, MakePipe());
  Pipe log;
  if (options.log_file.empty()) {
    ASSIGN_OR_RETURN(log, MakePipe());
  } else {
    log.write_end.Reset(
        ::open(options.log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
    if (!log.write_end) return ErrnoStatus(errno, absl::StrCat("open ", options.log_file));
  }

  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&files, ready.write_end.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&files, log.write_end.get(), STDERR_FILENO);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  sigset_t signals;
  ::sigemptyset(&signals);
  ::posix_spawnattr_setsigmask(&attributes, &signals);
  ::sigfillset(&signals);
  ::posix_spawnattr_setsigdefault(&attributes, &signals);

  std::vector<std::string> arguments = Arguments(options);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t pid = -1;
  const int error =
      ::posix_spawnp(&pid, options.program.c_str(), &files, &attributes, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&files);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) return ErrnoStatus(error, absl::StrCat("start ", options.program));

  // glibc 2.36 declares pidfd_open without extern "C".
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) {
    const absl::Status status = ErrnoStatus(errno, "pidfd_open");
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return status;
  }
  return std::unique_ptr<ServerProcess>(
      new ServerProcess(pid, std::move(pidfd), std::move(ready.read_end), std::move(log.read_end)));
}

ServerProcess::ServerProcess(pid_t pid, UniqueFd pidfd, UniqueFd ready, UniqueFd log)
    : pid_(pid), pidfd_(std::move(pidfd)), ready_(std::move(ready)), log_(std::move(log)) {}

ServerProcess::~ServerProcess() {
  if (reaped_) return;
  Kill();
  Reap();
}

void ServerProcess::Kill() {
  if (!reaped_) ::kill(pid_, SIGKILL);
}

const std::string& ServerProcess::Reap() {
  if (reaped_) return end_;
  while (::waitpid(pid_, &wait_status_, 0) < 0 && errno == EINTR) {
  }
  reaped_ = true;
  if (WIFSIGNALED(wait_status_)) {
    const int signal = WTERMSIG(wait_status_);
    end_ = absl::StrCat("was killed by signal ", signal, " (", ::strsignal(signal), ")");
  } else {
    end_ = absl::StrCat("exited with status ", WEXITSTATUS(wait_status_));
  }
  return end_;
}

}  // namespace bothy::bothyctl
