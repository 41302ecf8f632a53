#include "bench/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

namespace bothy::bench {

void Fail(std::string_view what) {
  std::fprintf(stderr, "bench: %.*s\n", static_cast<int>(what.size()), what.data());
  std::exit(1);
}

Process::Process(const std::vector<std::string>& command, const std::string& log) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) Fail("pipe2");
  output_.Reset(ends[0]);
  const UniqueFd write_end(ends[1]);
  const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const UniqueFd errors(::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!null || !errors) Fail("opening " + log + ": " + std::strerror(errno));
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t parent = ::getpid();

  started_ = Clock::now();
  // vfork's memory is the parent's, which sleeps until the exec: no page tables to copy, so that
  // what is timed is the child's own start.
  pid_ = ::vfork();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent || ::dup2(null.get(), STDIN_FILENO) < 0 ||
        ::dup2(write_end.get(), STDOUT_FILENO) < 0 || ::dup2(errors.get(), STDERR_FILENO) < 0) {
      ::_exit(127);
    }
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  }
  if (pid_ < 0) Fail("vfork");
}

bool Process::WaitForEndOfOutput(Time deadline) {
  char buffer[4096];
  while (WaitReadable(output_.get(), deadline)) {
    const ssize_t size = ::read(output_.get(), buffer, sizeof buffer);
    if (size == 0) return true;
    if (size < 0 && errno != EINTR) Fail("reading a child's output");
  }
  return false;
}

std::optional<int> Process::Wait() {
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0) {
    if (errno != EINTR) Fail("waitpid");
  }
  pid_ = -1;
  if (!WIFEXITED(status)) return std::nullopt;
  return WEXITSTATUS(status);
}

void Process::Kill() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  Wait();
}

Folder::Folder() {
  path_ = std::filesystem::temp_directory_path() / "bothy-bench-XXXXXX";
  if (::mkdtemp(path_.data()) == nullptr) Fail("mkdtemp " + path_);
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string Folder::File(std::string_view name) const { return path_ + "/" + std::string(name); }

bool WaitReadable(int fd, Time deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd poll{.fd = fd, .events = POLLIN, .revents = 0};
    const int ready = ::poll(&poll, 1, static_cast<int>(std::max<int64_t>(left, 0)));
    if (ready > 0) return true;
    if (ready == 0 && left <= 0) return false;
    if (ready < 0 && errno != EINTR) Fail("poll");
  }
}

std::string Tail(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  constexpr size_t kLimit = 2000;
  const std::string all = text.str();
  return all.size() > kLimit ? all.substr(all.size() - kLimit) : all;
}

}  // namespace bothy::bench
