// `bothyctl run` as its users see it, with a server that has no machine: terminals, keys, deaths on
// either side, and what is left afterwards.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "support/testing/test_folder.h"
#include "tests/bothyctl/child.h"
#include "ttrpc/unix_socket.h"

namespace bothy::bothyctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RunTest : public ::testing::Test {
 protected:
  RunTest() { std::filesystem::create_directory(folder_ / "runtime"); }
  ~RunTest() override {
    // bothyctl's own folder is gone, however it ended; what ends after it may need a moment.
    EXPECT_TRUE(Eventually([&] { return std::filesystem::is_empty(folder_ / "runtime"); }));
  }

  static bool Eventually(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + Patience();
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  [[nodiscard]] std::map<std::string, std::string> Environment(
      std::map<std::string, std::string> more = {}) const {
    more["XDG_RUNTIME_DIR"] = folder_ / "runtime";
    more["FAKE_SERVER_CALLS"] = folder_ / "calls";
    more["TERM"] = "dumb";
    return more;
  }

  static std::vector<std::string> Words(const std::string& cmdline,
                                        const std::vector<std::string>& more = {}) {
    std::vector<std::string> words = {BOTHYCTL,   "run", "--server",  FAKE_SERVER,
                                      "--kernel", "/k",  "--cmdline", cmdline};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }

  // bothyctl run, on a terminal.
  [[nodiscard]] std::unique_ptr<Child> OnTerminal(const std::string& cmdline,
                                                  const std::vector<std::string>& more = {}) const {
    return std::make_unique<Child>(Words(cmdline, more),
                                   ChildOptions{.terminal = true, .environment = Environment()});
  }
  // bothyctl run, on pipes.
  [[nodiscard]] std::unique_ptr<Child> OnPipes(
      const std::string& cmdline, const std::vector<std::string>& more = {},
      std::map<std::string, std::string> environment = {}) const {
    return std::make_unique<Child>(
        Words(cmdline, more), ChildOptions{.environment = Environment(std::move(environment))});
  }

  // The calls that the server got, and its orderly end.
  [[nodiscard]] std::vector<std::string> Calls() const {
    std::ifstream file(folder_ / "calls");
    std::vector<std::string> calls;
    for (std::string line; std::getline(file, line);) calls.push_back(line);
    return calls;
  }
  [[nodiscard]] int Count(const std::string& call) const {
    const auto calls = Calls();
    return static_cast<int>(std::count(calls.begin(), calls.end(), call));
  }

  // The server that this bothyctl has started.
  static pid_t ServerOf(const Child& child) {
    const std::string path = "/proc/" + std::to_string(child.pid()) + "/task/" +
                             std::to_string(child.pid()) + "/children";
    std::ifstream children(path);
    for (pid_t pid = 0; children >> pid;) {
      std::error_code error;
      const auto program =
          std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/exe", error);
      if (program == FAKE_SERVER) return pid;
    }
    ADD_FAILURE() << "no server";
    return -1;
  }

  [[nodiscard]] std::string ReadFile(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(folder_ / name).rdbuf();
    return text.str();
  }

  static void ExpectRestored(const Child& child) {
    EXPECT_TRUE(SameMode(child.Mode(), child.mode_before()));
  }

  const TestFolder folder_;
};

TEST_F(RunTest, ShowsTheConsoleAndEndsWithTheGuest) {
  const auto child = OnPipes("print:hello\\n poweroff");
  EXPECT_EQ(child->AwaitEnd(), 0);
  EXPECT_EQ(child->output(), "hello\r\n");
  EXPECT_EQ(child->error_output(), "");
  EXPECT_THAT(Calls(), ElementsAre("CreateVM", "WaitVM", "ResumeVM", "PropertiesVM", "TeardownVM",
                                   "Quit", "ended"));
}

TEST_F(RunTest, TellsHowTheGuestEnded) {
  const auto reset = OnPipes("reset");
  EXPECT_EQ(reset->AwaitEnd(), 4);
  EXPECT_EQ(reset->error_output(), "bothyctl: the guest halted: reset\n");
  const auto crash = OnPipes("crash");
  EXPECT_EQ(crash->AwaitEnd(), 3);
  EXPECT_EQ(crash->error_output(), "bothyctl: the guest halted: triple-fault\n");
}

TEST_F(RunTest, PutsTheTerminalIntoRawModeAndBack) {
  const auto child = OnTerminal("print:ready");
  child->AwaitOutput("ready");
  EXPECT_EQ(child->Mode().c_lflag & (ICANON | ECHO | ISIG), 0U);
  EXPECT_EQ(child->Mode().c_oflag & OPOST, 0U);
  // Ctrl-C, Ctrl-Z, Ctrl-D and Enter are the guest's.
  child->Type("a\x03\x1a\x04\r\x1d\x1d");
  child->AwaitOutput("<61><03><1a><04><0d><1d>");
  child->Type("O");
  EXPECT_EQ(child->AwaitEnd(), 0);
  ExpectRestored(*child);
  // The shell's prompt starts on a line of its own.
  EXPECT_TRUE(child->output().ends_with('\n')) << child->output();
}

TEST_F(RunTest, EscapeKeyQuits) {
  const auto child = OnTerminal("print:ready");
  child->AwaitOutput("ready");
  child->Type("\x1dq");
  EXPECT_EQ(child->AwaitEnd(), 0);
  ExpectRestored(*child);
  EXPECT_THAT(Calls(),
              ElementsAre("CreateVM", "WaitVM", "ResumeVM", "TeardownVM", "Quit", "ended"));
}

TEST_F(RunTest, EscapeKeyPausesAndResumes) {
  const auto child = OnTerminal("print:ready");
  child->AwaitOutput("ready");
  child->Type("\x1d?");
  child->AwaitOutput("Ctrl-] then q ends the VM");
  child->Type("\x1dp");
  child->AwaitOutput("[bothyctl: paused; Ctrl-] p resumes]\r\n");
  EXPECT_EQ(Count("PauseVM"), 1);
  child->Type("\x1dp");
  child->AwaitOutput("[bothyctl: resumed]\r\n");
  EXPECT_EQ(Count("ResumeVM"), 2);
  child->Type("\x1dx");
  child->AwaitOutput("no such key");
  child->Type("O");
  EXPECT_EQ(child->AwaitEnd(), 0);
}

TEST_F(RunTest, EscapeKeyCanBeAnotherOne) {
  const auto child = OnTerminal("print:ready", {"--escape", "ctrl-a"});
  child->AwaitOutput("ready");
  child->Type("\x1dq");
  child->AwaitOutput("<1d><71>");
  child->Type("\x01?");
  child->AwaitOutput("Ctrl-A then q");
  child->Type("\x01q");
  EXPECT_EQ(child->AwaitEnd(), 0);
}

TEST_F(RunTest, EscapeKeyWorksWhileTheGuestTakesNoInput) {
  const auto child = OnTerminal("print:ready deaf");
  child->AwaitOutput("ready");
  // More than sockets and bothyctl keep.
  const std::string much(64 << 10, 'x');
  for (int i = 0; i < 16; ++i) child->Type(much);
  child->Type("\x1dq");
  EXPECT_EQ(child->AwaitEnd(), 0);
  ExpectRestored(*child);
}

TEST_F(RunTest, SurvivesTheServersDeath) {
  const auto child = OnTerminal("print:ready");
  child->AwaitOutput("ready");
  ::kill(ServerOf(*child), SIGKILL);
  EXPECT_EQ(child->AwaitEnd(), 1);
  ExpectRestored(*child);
  EXPECT_TRUE(child->output().ends_with(
      "ready\r\nbothyctl: the server was killed by signal 9 (Killed)\r\n"))
      << child->output();
}

TEST_F(RunTest, TellsOfAServerThatExits) {
  const auto child = OnPipes("print:ready");
  child->AwaitOutput("ready");
  child->Type("X");
  EXPECT_EQ(child->AwaitEnd(), 1);
  EXPECT_EQ(child->error_output(), "bothyctl: the server exited with status 7\n");
}

TEST_F(RunTest, KilledItLeavesTheTerminalAsItWasAndNothingElse) {
  const auto child = OnTerminal("print:ready");
  child->AwaitOutput("ready");
  const pid_t server = ServerOf(*child);
  child->Signal(SIGKILL);
  EXPECT_EQ(child->AwaitEnd(), 128 + SIGKILL);
  child->AwaitRaw(false);
  ExpectRestored(*child);
  // The server ends with it; reaped by whoever inherits it.
  EXPECT_TRUE(Eventually([&] {
    std::ifstream stat("/proc/" + std::to_string(server) + "/stat");
    std::string text;
    return !std::getline(stat, text) || text.find(") Z ") != std::string::npos;
  }));
}

TEST_F(RunTest, CrashingItLeavesTheTerminalAsItWas) {
  for (const int signal : {SIGABRT, SIGSEGV}) {
    const auto child = OnTerminal("print:ready");
    child->AwaitOutput("ready");
    child->Signal(signal);
    EXPECT_NE(child->AwaitEnd(), 0);
    child->AwaitRaw(false);
    ExpectRestored(*child);
  }
}

TEST_F(RunTest, SignalsEndItInOrder) {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    const auto child = OnTerminal("print:ready");
    child->AwaitOutput("ready");
    child->Signal(signal);
    EXPECT_EQ(child->AwaitEnd(), 128 + signal);
    ExpectRestored(*child);
  }
  EXPECT_EQ(Count("TeardownVM"), 3);
  EXPECT_EQ(Count("ended"), 3);
}

TEST_F(RunTest, InterruptsWhatIsStillStarting) {
  const auto child = OnTerminal("stuck:CreateVM");
  ASSERT_TRUE(Eventually([&] { return Count("CreateVM") == 1; }));
  // Not raw yet: the terminal makes a signal of it.
  child->Type("\x03");
  EXPECT_EQ(child->AwaitEnd(), 128 + SIGINT);
  EXPECT_EQ(Count("ended"), 1);
}

TEST_F(RunTest, InterruptedTwiceItDoesNotWait) {
  const auto child = OnPipes("print:ready stuck:TeardownVM");
  child->AwaitOutput("ready");
  child->Signal(SIGTERM);
  ASSERT_TRUE(Eventually([&] { return Count("TeardownVM") == 1; }));
  child->Signal(SIGTERM);
  EXPECT_EQ(child->AwaitEnd(), 128 + SIGTERM);
  EXPECT_EQ(Count("ended"), 0);
}

TEST_F(RunTest, StopsAndContinuesAsAJobOfTheShell) {
  Child shell({"bash", "--norc", "--noprofile"},
              {.terminal = true, .environment = Environment({{"PS1", "[shell]"}})});
  shell.AwaitOutput("[shell]");
  std::string line;
  for (const std::string& word : Words("print:guest_is_up")) line += "'" + word + "' ";
  shell.Type(line + "\r");
  shell.AwaitOutput("guest is up");
  shell.Type("\x1dz");
  shell.AwaitOutput("suspended");
  shell.AwaitOutput("[shell]");
  shell.Type("echo still-$((1+1))\r");
  shell.AwaitOutput("still-2");
  shell.AwaitOutput("[shell]");
  shell.Type("fg\r");
  shell.AwaitRaw(true);
  // What the shell had on the terminal is behind us once the guest answers.
  shell.Type("a");
  shell.AwaitOutput("<61>");
  // Stopped from outside, the shell makes the terminal its own meanwhile.
  const pid_t bothyctl = [&] {
    std::ifstream children("/proc/" + std::to_string(shell.pid()) + "/task/" +
                           std::to_string(shell.pid()) + "/children");
    pid_t pid = -1;
    children >> pid;
    return pid;
  }();
  ::kill(bothyctl, SIGSTOP);
  shell.AwaitOutput("[shell]");
  shell.Type("fg\r");
  shell.AwaitOutput("fg");
  EXPECT_TRUE(Eventually([&] {
    shell.Type("b");
    return (shell.Mode().c_lflag & ICANON) == 0;
  }));
  shell.AwaitOutput("<62>");
  shell.Type("O");
  shell.AwaitOutput("[shell]");
  EXPECT_NE(shell.Mode().c_oflag & OPOST, 0U);
  shell.Type("exit\r");
  shell.AwaitEnd();
}

TEST_F(RunTest, PassesAPipeToTheGuestWholeAndUnread) {
  const auto child = OnPipes("print:ready");
  child->AwaitOutput("ready");
  child->Type("a\x1dq\xff");
  child->AwaitOutput("<61><1d><71><ff>");
  child->Type("O");
  EXPECT_EQ(child->AwaitEnd(), 0);
}

TEST_F(RunTest, GoesOnAfterTheEndOfItsInput) {
  const auto child = OnPipes("print:ready");
  child->CloseInput();
  child->AwaitOutput("ready");
  child->Signal(SIGTERM);
  EXPECT_EQ(child->AwaitEnd(), 128 + SIGTERM);
}

TEST_F(RunTest, LosesNothingOfALongOutput) {
  constexpr int kKibibytes = 12 << 10;
  const auto child = OnPipes("flood:" + std::to_string(kKibibytes) + " poweroff");
  EXPECT_EQ(child->AwaitEnd(), 0);
  std::istringstream lines(child->output());
  int number = 0;
  for (std::string line; std::getline(lines, line); ++number) {
    ASSERT_EQ(std::stoi(line), number);
    ASSERT_EQ(line.size(), 63U);
  }
  EXPECT_EQ(number, kKibibytes * 16);
}

TEST_F(RunTest, EndsWhenNobodyReadsItsOutput) {
  const auto child = OnPipes("print:ready");
  child->AwaitOutput("ready");
  child->CloseOutput();
  child->Type("a");
  EXPECT_EQ(child->AwaitEnd(), 1);
  EXPECT_EQ(child->error_output(), "bothyctl: standard output: Broken pipe\n");
  EXPECT_EQ(Count("ended"), 1);
}

TEST_F(RunTest, TellsWhyTheServerDidNotStart) {
  const auto child =
      OnPipes("", {}, {{"FAKE_SERVER_FAILS", "bothy: no /dev/kvm\nbothy: what a pity"}});
  EXPECT_EQ(child->AwaitEnd(), 1);
  EXPECT_EQ(child->error_output(),
            "bothy: no /dev/kvm\nbothy: what a pity\nbothyctl: the server exited with status 3\n");
}

TEST_F(RunTest, InterruptsAServerThatNeverBecomesReady) {
  const auto child = OnPipes("", {}, {{"FAKE_SERVER_HANGS", "1"}});
  ASSERT_TRUE(Eventually([&] { return !std::filesystem::is_empty(folder_ / "runtime"); }));
  child->Signal(SIGTERM);
  EXPECT_EQ(child->AwaitEnd(), 128 + SIGTERM);
}

TEST_F(RunTest, TellsOfARefusalOnOneLine) {
  const auto child = OnPipes("refuse:config.memory_config.memory_mb");
  EXPECT_EQ(child->AwaitEnd(), 1);
  EXPECT_EQ(child->error_output(),
            "bothyctl: CreateVM: InvalidArgument: config.memory_config.memory_mb: refused\n");
  EXPECT_THAT(Calls(), ElementsAre("CreateVM", "Quit", "ended"));
}

TEST_F(RunTest, ShowsTheServersLogBetweenTheGuestsLines) {
  const auto child = OnTerminal("log:a-record print:ready");
  child->AwaitOutput("ready");
  child->Type("O");
  EXPECT_EQ(child->AwaitEnd(), 0);
  EXPECT_THAT(child->output(), HasSubstr("a-record\r"));
  const auto elsewhere = OnPipes("log:a-record poweroff", {"--server-log", folder_ / "log"});
  EXPECT_EQ(elsewhere->AwaitEnd(), 0);
  EXPECT_EQ(elsewhere->error_output(), "");
  EXPECT_EQ(ReadFile("log"), "a-record\n");
}

TEST_F(RunTest, TellsTheTimeline) {
  const auto child = OnPipes("print:booting\\nbothy-guest:_init_1\\n poweroff", {"--timeline"});
  EXPECT_EQ(child->AwaitEnd(), 0);
  EXPECT_EQ(child->output(), "booting\r\nbothy-guest: init 1\r\n");
  size_t at = 0;
  for (const char* event : {"timeline", "server ready", "CreateVM answered", "halt"}) {
    at = child->error_output().find(event, at);
    ASSERT_NE(at, std::string::npos) << event << " in " << child->error_output();
  }
  for (const char* event : {"ResumeVM answered", "first guest output", "\ninit "}) {
    EXPECT_THAT(child->error_output(), HasSubstr(event));
  }
}

TEST_F(RunTest, WritesTheTimelineAsJson) {
  const std::string file = folder_ / "timeline.json";
  const auto child = OnPipes("print:debian_login: poweroff",
                             {"--json", "--timeline-file", file, "--timeline-init", "login:"});
  EXPECT_EQ(child->AwaitEnd(), 0);
  EXPECT_EQ(child->error_output(), "");
  const std::string json = ReadFile("timeline.json");
  for (const char* event :
       {"server_ready", "create_answered", "resume_answered", "first_output", "init", "halt"}) {
    EXPECT_THAT(json, HasSubstr("\"" + std::string(event) + "\": {\"ms\": "));
  }
  EXPECT_THAT(json, HasSubstr("\"halt_reason\": \"power-off\"}\n"));
}

TEST_F(RunTest, UsesAServerThatRunsAndLeavesItRunning) {
  const std::string address = folder_ / "vm.sock";
  Child server({FAKE_SERVER, "--ttrpc", address}, {.environment = Environment()});
  ASSERT_TRUE(Eventually([&] { return std::filesystem::exists(address); }));
  for (int i = 0; i < 2; ++i) {
    Child child(
        {BOTHYCTL, "-a", address, "run", "--kernel", "/k", "--cmdline", "print:hello poweroff"},
        {.environment = Environment()});
    EXPECT_EQ(child.AwaitEnd(), 0) << child.error_output();
    EXPECT_EQ(child.output(), "hello");
  }
  EXPECT_EQ(Count("TeardownVM"), 2);
  EXPECT_EQ(Count("Quit"), 0);

  Child child({BOTHYCTL, "-a", address, "run", "--kernel", "/k", "--cmdline", "print:ready"},
              {.environment = Environment()});
  child.AwaitOutput("ready");
  Child teardown({BOTHYCTL, "-a", address, "teardown"}, {.environment = Environment()});
  EXPECT_EQ(teardown.AwaitEnd(), 0);
  EXPECT_EQ(child.AwaitEnd(), 5);
  EXPECT_EQ(child.error_output(), "bothyctl: the VM was torn down by another client\n");

  Child orphan({BOTHYCTL, "-a", address, "run", "--kernel", "/k", "--cmdline", "print:ready"},
               {.environment = Environment()});
  orphan.AwaitOutput("ready");
  orphan.Type("K");
  EXPECT_EQ(orphan.AwaitEnd(), 1);
  EXPECT_THAT(orphan.error_output(), HasSubstr("bothyctl: WaitVM: Unavailable: "));
}

TEST_F(RunTest, LeavesAConsoleThatHasASocketAlone) {
  const std::string path = folder_ / "com1.sock";
  const auto listener = ttrpc::ListenUnix(path);
  ASSERT_TRUE(listener.ok()) << listener.status();
  const auto child = OnPipes("print:hello poweroff", {"--serial", "0=" + path});
  EXPECT_EQ(child->AwaitEnd(), 0);
  EXPECT_EQ(child->output(), "");
  EXPECT_EQ(child->error_output(), "bothyctl: the guest's console is at " + path + "\n");
  const UniqueFd console(::accept(listener->fd.get(), nullptr, nullptr));
  char text[16] = {};
  EXPECT_EQ(::recv(console.get(), text, sizeof text, 0), 5);
  EXPECT_STREQ(text, "hello");
}

}  // namespace
}  // namespace bothy::bothyctl
