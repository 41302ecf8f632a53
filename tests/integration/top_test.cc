// `bothyctl top` against real servers, in scripts and on a terminal. Needs no KVM.
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "tests/integration/program.h"
#include "tests/integration/server_test.h"

namespace bothy::integration {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

// A program on a terminal of 80 columns and 24 rows.
class OnTerminal {
 public:
  explicit OnTerminal(const std::vector<std::string>& words) {
    winsize size{};
    size.ws_col = 80;
    size.ws_row = 24;
    pid_ = ::forkpty(&terminal_, nullptr, nullptr, &size);
    if (pid_ != 0) return;
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  ~OnTerminal() {
    if (!ended_) {
      ::kill(pid_, SIGKILL);
      (void)AwaitEnd();
    }
    ::close(terminal_);
  }
  OnTerminal(const OnTerminal&) = delete;
  OnTerminal& operator=(const OnTerminal&) = delete;

  // Reads until `text` has been shown `times` times; false: the program has ended before.
  bool Await(const std::string& text, size_t times = 1) {
    const auto count = [&] {
      size_t found = 0;
      for (size_t at = shown_.find(text); at != std::string::npos; at = shown_.find(text, at + 1)) {
        ++found;
      }
      return found;
    };
    while (count() < times) {
      if (!Read()) return false;
    }
    return true;
  }
  void Type(const std::string& keys) {
    ASSERT_EQ(::write(terminal_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }
  void Resize(uint16_t columns, uint16_t rows) {
    winsize size{};
    size.ws_col = columns;
    size.ws_row = rows;
    ASSERT_EQ(::ioctl(terminal_, TIOCSWINSZ, &size), 0);
  }
  // As waitpid(2) has it.
  int AwaitEnd() {
    while (Read()) {
    }
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    ended_ = true;
    return status;
  }
  [[nodiscard]] const std::string& shown() const { return shown_; }
  void Forget() { shown_.clear(); }
  [[nodiscard]] bool Echoes() const {
    termios mode{};
    return ::tcgetattr(terminal_, &mode) == 0 && (mode.c_lflag & ECHO) != 0;
  }

 private:
  // False at the end: nobody has the terminal open any more.
  bool Read() {
    char buffer[4096];
    const ssize_t size = ::read(terminal_, buffer, sizeof buffer);
    if (size < 0 && errno == EINTR) return true;
    if (size <= 0) return false;
    shown_.append(buffer, static_cast<size_t>(size));
    return true;
  }

  int terminal_ = -1;
  pid_t pid_ = -1;
  bool ended_ = false;
  std::string shown_;
};

constexpr char kLeft[] = "\x1b[?1049l";

class TopTest : public ServerTest {};

TEST_F(TopTest, AScriptGetsAsManyRoundsAsItAsksFor) {
  StartServer();
  const ProgramResult text =
      RunProgram({BOTHY_CLIENT, "top", "-a", SocketPath(), "--delay", "1ms", "--count", "2"});
  EXPECT_EQ(text.status, 0) << text.error_output;
  const size_t second = text.output.find("bothy top", 1);
  ASSERT_NE(second, std::string::npos) << text.output;
  EXPECT_EQ(text.output.find("bothy top", second + 1), std::string::npos) << text.output;
  EXPECT_THAT(text.output, Not(HasSubstr("\x1b")));
  const ProgramResult json =
      RunProgram({BOTHY_CLIENT, "top", SocketPath(), "--delay", "1ms", "--count", "1", "--json"});
  EXPECT_EQ(json.status, 0) << json.error_output;
  EXPECT_THAT(json.output, HasSubstr("\"state\": \"none\""));
}

TEST_F(TopTest, ServersThatAreNotThereAreShownAsSuch) {
  StartServer();
  const std::string nowhere = folder_ / "nowhere.sock";
  const ProgramResult both = RunProgram(
      {BOTHY_CLIENT, "top", SocketPath(), nowhere, "--delay", "1ms", "--count", "1", "--json"});
  EXPECT_EQ(both.status, 0);
  EXPECT_THAT(both.output, HasSubstr("\"error\": "));
  const ProgramResult none =
      RunProgram({BOTHY_CLIENT, "top", nowhere, "--delay", "1ms", "--count", "1"});
  EXPECT_EQ(WEXITSTATUS(none.status), 1);
  const ProgramResult unnamed = RunProgram({BOTHY_CLIENT, "top"});
  EXPECT_EQ(WEXITSTATUS(unnamed.status), 2);
  EXPECT_THAT(unnamed.error_output, HasSubstr("--address"));
}

TEST_F(TopTest, ATerminalIsLeftAsItWas) {
  StartServer();
  for (const char* const key : {"q", "\x03"}) {
    OnTerminal top({BOTHY_CLIENT, "top", "-a", SocketPath(), "--delay", "1ms"});
    ASSERT_TRUE(top.Await("bothy top", 3)) << top.shown();
    EXPECT_FALSE(top.Echoes());
    top.Type(key);
    EXPECT_EQ(top.AwaitEnd(), 0) << top.shown();
    EXPECT_THAT(top.shown(), EndsWith(kLeft));
  }
}

TEST_F(TopTest, AnotherSizeIsShownAtOnce) {
  StartServer();
  OnTerminal top({BOTHY_CLIENT, "top", "-a", SocketPath(), "--delay", "1h"});
  ASSERT_TRUE(top.Await("RAM")) << top.shown();
  top.Resize(50, 10);
  ASSERT_TRUE(top.Await("bothy top", 2)) << top.shown();
  top.Type("q");
  EXPECT_EQ(top.AwaitEnd(), 0);
}

TEST_F(TopTest, AServerThatEndsMayComeBack) {
  StartServer();
  OnTerminal top({BOTHY_CLIENT, "top", "-a", SocketPath(), "--delay", "1ms"});
  ASSERT_TRUE(top.Await("none")) << top.shown();
  server_->Signal(SIGTERM);
  (void)server_->AwaitEnd();
  ASSERT_TRUE(top.Await("vm.sock:")) << top.shown();
  top.Forget();
  StartServer();
  ASSERT_TRUE(top.Await("none")) << top.shown();
  top.Type("q");
  EXPECT_EQ(top.AwaitEnd(), 0);
}

}  // namespace
}  // namespace bothy::integration
