#include "tests/bothyctl/child.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"

namespace bothy::bothyctl {
namespace {

void Pipe(UniqueFd* read_end, UniqueFd* write_end) {
  int fds[2];
  ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  read_end->Reset(fds[0]);
  write_end->Reset(fds[1]);
}

// Appends what is there; false at the end.
bool Append(UniqueFd& fd, std::string* text) {
  char buffer[64 << 10];
  const ssize_t size = ::read(fd.get(), buffer, sizeof buffer);
  if (size > 0) text->append(buffer, static_cast<size_t>(size));
  return size > 0 || (size < 0 && (errno == EINTR || errno == EAGAIN));
}

}  // namespace

Child::Child(const std::vector<std::string>& words, const ChildOptions& options) {
  UniqueFd child_in;
  UniqueFd child_out;
  UniqueFd child_err;
  if (options.terminal) {
    int master = -1;
    int slave = -1;
    EXPECT_EQ(::openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
    ::fcntl(master, F_SETFD, FD_CLOEXEC);
    ::fcntl(slave, F_SETFD, FD_CLOEXEC);
    out_.Reset(master);
    input_.Reset(::fcntl(master, F_DUPFD_CLOEXEC, 0));
    slave_.Reset(slave);
    EXPECT_EQ(::tcgetattr(slave, &mode_before_), 0);
  } else {
    Pipe(&child_in, &input_);
    Pipe(&out_, &child_out);
    Pipe(&err_, &child_err);
  }
  std::vector<std::string> arguments = words;
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  // Made before the fork: other threads of the test may hold locks that the child would wait for.
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string name(*variable, std::strcspn(*variable, "="));
    if (!options.environment.contains(name)) variables.emplace_back(*variable);
  }
  for (const auto& [name, value] : options.environment)
    variables.push_back(absl::StrCat(name, "=", value));
  std::vector<char*> environment;
  for (std::string& variable : variables) environment.push_back(variable.data());
  environment.push_back(nullptr);

  pid_ = ::fork();
  EXPECT_GE(pid_, 0);
  if (pid_ != 0) {
    // glibc 2.36 declares pidfd_open without extern "C".
    pidfd_.Reset(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
    EXPECT_TRUE(pidfd_.valid());
    return;
  }
  if (options.terminal) {
    ::setsid();
    ::ioctl(slave_.get(), TIOCSCTTY, 0);
    for (int fd = 0; fd < 3; ++fd) ::dup2(slave_.get(), fd);
  } else {
    ::dup2(child_in.get(), 0);
    ::dup2(child_out.get(), 1);
    ::dup2(child_err.get(), 2);
  }
  ::execvpe(argv[0], argv.data(), environment.data());
  ::_exit(127);
}

Child::~Child() {
  if (end_) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

bool Child::ReadSome(Until until) {
  // The program first: what it wrote before the end that is seen there is seen behind it.
  const int program = until == Until::kEndOfProgram ? pidfd_.get() : -1;
  pollfd fds[3] = {{.fd = program, .events = POLLIN, .revents = 0},
                   {.fd = out_.get(), .events = POLLIN, .revents = 0},
                   {.fd = err_.get(), .events = POLLIN, .revents = 0}};
  if (!out_ && !err_) return false;
  const int ready = ::poll(fds, 3, static_cast<int>(Patience().count()));
  if (ready <= 0) {
    ADD_FAILURE() << "nothing came any more; so far: " << output_ << error_output_;
    ::kill(pid_, SIGKILL);  // nobody shall wait for it
    return false;
  }
  if (fds[0].revents != 0 && ready == 1) return false;
  if (fds[1].revents != 0 && !Append(out_, &output_)) out_.Reset();
  if (fds[2].revents != 0 && !Append(err_, &error_output_)) err_.Reset();
  return true;
}

void Child::AwaitOutput(const std::string& text) {
  size_t at = std::string::npos;
  while ((at = output_.find(text, awaited_)) == std::string::npos) {
    if (!ReadSome(Until::kEndOfProgram)) {
      FAIL() << "never came: " << text << "; what came: " << output_ << error_output_;
    }
  }
  awaited_ = at + text.size();
}

void Child::Type(const std::string& keys) {
  for (size_t done = 0; done < keys.size();) {
    const ssize_t size = ::write(input_.get(), keys.data() + done, keys.size() - done);
    ASSERT_GT(size, 0) << std::strerror(errno);
    done += static_cast<size_t>(size);
  }
}

int Child::AwaitEnd() {
  if (end_) return *end_;
  // A terminal has no end while somebody holds its other side.
  slave_.Reset();
  while (ReadSome(Until::kEndOfOutput)) {
  }
  int status = 0;
  EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
  end_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return *end_;
}

void Child::Signal(int signal) const { EXPECT_EQ(::kill(pid_, signal), 0); }

termios Child::Mode() const {
  termios mode = {};
  EXPECT_EQ(::tcgetattr(out_.valid() ? out_.get() : input_.get(), &mode), 0);
  return mode;
}

void Child::AwaitRaw(bool raw) const {
  // Nothing tells when a terminal's mode changes.
  const auto deadline = std::chrono::steady_clock::now() + Patience();
  while (((Mode().c_lflag & ICANON) == 0) != raw) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << output_;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void Child::Resize(uint16_t columns, uint16_t rows) const {
  winsize size{};
  size.ws_col = columns;
  size.ws_row = rows;
  EXPECT_EQ(::ioctl(out_.get(), TIOCSWINSZ, &size), 0);
}

std::chrono::milliseconds Patience() {
  return std::chrono::seconds(::testing::Test::HasFailure() ? 1 : 60);
}

bool SameMode(const termios& a, const termios& b) {
  return a.c_iflag == b.c_iflag && a.c_oflag == b.c_oflag && a.c_cflag == b.c_cflag &&
         a.c_lflag == b.c_lflag && std::memcmp(a.c_cc, b.c_cc, sizeof a.c_cc) == 0;
}

}  // namespace bothy::bothyctl
