// The guest itself, end to end: what tests of bothy take for granted when they boot it. Under
// QEMU's own emulation, which needs neither KVM nor the lab.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "support/unique_fd.h"
#include "tests/guest/agent_client.h"

namespace bothy::guest {
namespace {

constexpr absl::Duration kBoot = absl::Seconds(120);
constexpr absl::Duration kAnswer = absl::Seconds(30);

// A QEMU that ends with the test, and shows its console when that has failed. Its first serial port
// is a pipe, its second a socket.
class Qemu {
 public:
  explicit Qemu(const std::string& command_line) {
    const std::string guest = std::string(BOTHY_GUEST_DIR);
    int control[2], console[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control), 0);
    EXPECT_EQ(pipe2(console, O_CLOEXEC), 0);
    const std::vector<std::string> arguments = {"qemu-system-x86_64",
                                                "-M",
                                                "q35",
                                                "-accel",
                                                "tcg",
                                                "-cpu",
                                                "max",
                                                "-smp",
                                                "2",
                                                "-m",
                                                "256",
                                                "-nodefaults",
                                                "-display",
                                                "none",
                                                "-no-reboot",
                                                "-kernel",
                                                guest + "/vmlinuz",
                                                "-initrd",
                                                guest + "/initrd.img",
                                                "-append",
                                                "console=ttyS0 quiet panic=-1 " + command_line,
                                                "-serial",
                                                "stdio",
                                                "-chardev",
                                                "socket,id=control,fd=3",
                                                "-serial",
                                                "chardev:control"};
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      dup2(open("/dev/null", O_RDONLY), 0);
      dup2(console[1], 1);
      // Without the close-on-exec flag, whichever number it had.
      if (control[1] == 3) {
        fcntl(3, F_SETFD, 0);
      } else {
        dup2(control[1], 3);
      }
      std::vector<char*> pointers;
      for (const auto& argument : arguments)
        pointers.push_back(const_cast<char*>(argument.c_str()));
      pointers.push_back(nullptr);
      execvp(pointers[0], pointers.data());
      _exit(127);
    }
    close(control[1]);
    close(console[1]);
    control_.Reset(control[0]);
    console_.Reset(console[0]);
  }

  ~Qemu() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      int status = 0;
      waitpid(pid_, &status, 0);
      if (::testing::Test::HasFailure()) {
        std::fprintf(stderr, "QEMU's wait status: %d; its console:\n%s\n", status,
                     ConsoleToTheEnd().c_str());
      }
    }
  }

  UniqueFd TakeControl() { return std::move(control_); }

  // Everything on the console, once the guest has ended the machine.
  std::string ConsoleToTheEnd() {
    std::string text;
    char buffer[4096];
    for (ssize_t n; (n = read(console_.get(), buffer, sizeof buffer)) > 0;) {
      text.append(buffer, static_cast<size_t>(n));
    }
    return text;
  }

 private:
  pid_t pid_ = -1;
  UniqueFd control_;
  UniqueFd console_;
};

TEST(GuestTest, ServesTheProtocol) {
  Qemu qemu("");
  AgentClient agent(qemu.TakeControl());
  ASSERT_TRUE(agent.WaitReady(kBoot).ok());

  const auto result = agent.Run("echo out; echo err >&2; exit 3", kAnswer);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->status, 3);
  EXPECT_EQ(result->output, "out\n");
  EXPECT_EQ(result->error_output, "err\n");

  const auto large = agent.Run("seq 1000", kAnswer);
  ASSERT_TRUE(large.ok()) << large.status();
  EXPECT_EQ(large->output.size(), 3893U);

  const auto sleeper = agent.Start("sleep 1000");
  ASSERT_TRUE(sleeper.ok());
  EXPECT_TRUE(agent.Ping(kAnswer).ok());
  ASSERT_TRUE(agent.Kill(*sleeper, SIGTERM).ok());
  const auto killed = agent.Finish(*sleeper, kAnswer);
  ASSERT_TRUE(killed.ok()) << killed.status();
  EXPECT_EQ(killed->status, 128 + SIGTERM);

  const auto facts = agent.ReadFacts(kAnswer);
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_EQ(facts->find("cpus.online")->second, "2");
  EXPECT_EQ(facts->count("clock.source"), 1U);
  // SeaBIOS keeps a few hundred KiB for itself.
  const int64_t ram = std::stoll(facts->find("memory.ram_bytes")->second);
  EXPECT_LE(ram, 256 << 20);
  EXPECT_GT(ram, 255 << 20);

  const auto before = agent.ReadClocks(kAnswer);
  const auto after = agent.ReadClocks(kAnswer);
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_GT(after->monotonic, before->monotonic);

  ASSERT_TRUE(agent.End("poweroff", kAnswer).ok());
  EXPECT_THAT(qemu.ConsoleToTheEnd(), testing::HasSubstr("bothy-guest: end poweroff"));
}

TEST(GuestTest, RunsACommandFromTheKernelCommandLineAndCrashesAsTold) {
  Qemu qemu("bothy.run=clock-gap%20100;exit%204 bothy.end=triple-fault");
  const std::string console = qemu.ConsoleToTheEnd();
  EXPECT_THAT(console, testing::ContainsRegex("bothy-guest: init [0-9]+ [0-9]+ [0-9]+"));
  EXPECT_THAT(console, testing::ContainsRegex("largest [0-9]+"));
  EXPECT_THAT(console, testing::HasSubstr("backwards 0"));
  EXPECT_THAT(console, testing::HasSubstr("bothy-guest: exit 4"));
  EXPECT_THAT(console, testing::HasSubstr("bothy-guest: end triple-fault"));
}

TEST(GuestTest, IntroducesItselfAndPanicsAsTold) {
  Qemu qemu("bothy.demo=1 bothy.end=panic");
  const std::string console = qemu.ConsoleToTheEnd();
  EXPECT_THAT(console, testing::HasSubstr("kernel  Linux"));
  EXPECT_THAT(console, testing::HasSubstr("CPUs    2"));
  EXPECT_THAT(console, testing::HasSubstr("memory  256 MiB"));
  EXPECT_THAT(console, testing::HasSubstr("Kernel panic"));
}

}  // namespace
}  // namespace bothy::guest
