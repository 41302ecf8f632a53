// The server as a process: how it starts, says that it is ready, and ends. Needs no KVM.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/integration/program.h"
#include "tests/integration/server_test.h"

namespace bothy::integration {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ProcessTest : public ServerTest {
 protected:
  static bool EndedWell(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }
  static bool Refused(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 1; }
};

TEST_F(ProcessTest, EndOfStandardOutputMeansReady) {
  ServerProcess server({.socket_path = SocketPath()});
  EXPECT_EQ(server.AwaitReady(), "");
  EXPECT_TRUE(Vm(SocketPath()).Capabilities().ok());
}

TEST_F(ProcessTest, TheSocketIsTheOwnersAlone) {
  StartServer();
  struct stat status {};
  ASSERT_EQ(::stat(SocketPath().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
}

TEST_F(ProcessTest, QuitAnswersRemovesTheSocketAndEndsWell) {
  StartServer();
  EXPECT_THAT(vm_->Quit(), IsOk());
  EXPECT_TRUE(EndedWell(server_->AwaitEnd())) << server_->Log();
  EXPECT_THAT(folder_.Names(), IsEmpty());
}

TEST_F(ProcessTest, SignalsEndItAsQuitDoes) {
  for (const int signal : {SIGTERM, SIGINT}) {
    StartServer();
    server_->Signal(signal);
    EXPECT_TRUE(EndedWell(server_->AwaitEnd())) << signal << "\n" << server_->Log();
    EXPECT_THAT(folder_.Names(), IsEmpty());
  }
}

TEST_F(ProcessTest, AStaleSocketIsReplaced) {
  { const UniqueFd nobody_listens_any_more = ListenOn(SocketPath()); }
  ASSERT_THAT(folder_.Names(), ElementsAre("vm.sock"));
  StartServer();
  EXPECT_TRUE(vm_->Capabilities().ok());
}

TEST_F(ProcessTest, ALiveSocketIsSomebodyElses) {
  StartServer();
  ServerProcess second({.socket_path = SocketPath()});
  second.AwaitReady();
  EXPECT_TRUE(Refused(second.AwaitEnd()));
  EXPECT_THAT(second.Log(), HasSubstr(SocketPath()));
  // The first doesn't even notice.
  EXPECT_TRUE(vm_->Capabilities().ok());
  EXPECT_TRUE(Vm(SocketPath()).Capabilities().ok());
}

TEST_F(ProcessTest, WhatIsNoSocketIsLeftAlone) {
  folder_.Write("vm.sock", std::vector<uint8_t>{'x'});
  ServerProcess server({.socket_path = SocketPath()});
  server.AwaitReady();
  EXPECT_TRUE(Refused(server.AwaitEnd()));
  EXPECT_THAT(server.Log(), HasSubstr(SocketPath()));
  struct stat status {};
  ASSERT_EQ(::stat(SocketPath().c_str(), &status), 0);
  EXPECT_TRUE(S_ISREG(status.st_mode));
  EXPECT_EQ(status.st_size, 1);
}

TEST_F(ProcessTest, APathThatCannotBeIsAnErrorOnOneLine) {
  for (const std::string& path : {folder_ / "no such folder/vm.sock", std::string(200, 'x')}) {
    ServerProcess server({.socket_path = path});
    server.AwaitReady();
    EXPECT_TRUE(Refused(server.AwaitEnd()));
    const std::string log = server.Log();
    EXPECT_THAT(log, HasSubstr("--ttrpc"));
    EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 1) << log;
  }
}

TEST_F(ProcessTest, NoSocketAtAllIsAnError) {
  ServerProcess server({});
  server.AwaitReady();
  EXPECT_TRUE(Refused(server.AwaitEnd()));
  EXPECT_THAT(server.Log(), HasSubstr("--ttrpc"));
}

TEST_F(ProcessTest, AnUnknownFlagIsAnErrorAndHelpIsNone) {
  const ProgramResult unknown = RunProgram({BOTHY_SERVER, "--no-such-flag"});
  EXPECT_TRUE(WIFEXITED(unknown.status) && WEXITSTATUS(unknown.status) == 2);
  EXPECT_THAT(unknown.error_output, HasSubstr("--no-such-flag"));
  const ProgramResult wrong = RunProgram({BOTHY_SERVER, "--log-level", "loud"});
  EXPECT_TRUE(WIFEXITED(wrong.status) && WEXITSTATUS(wrong.status) == 2);
  EXPECT_EQ(wrong.error_output,
            "bothy: --log-level: \"loud\" is none of debug, info, warning, error (bothy --help "
            "tells more)\n");
  const ProgramResult help = RunProgram({BOTHY_SERVER, "--help"});
  EXPECT_TRUE(EndedWell(help.status));
  EXPECT_THAT(help.output, HasSubstr("--ttrpc"));
}

TEST_F(ProcessTest, ASocketPassedBySystemdIsServedAndLeftInPlace) {
  const UniqueFd socket = ListenOn(SocketPath());
  server_ = std::make_unique<ServerProcess>(ServerOptions{.activation_socket = socket.get()});
  ASSERT_EQ(server_->AwaitReady(), "");
  vm_ = std::make_unique<Vm>(SocketPath());
  EXPECT_TRUE(vm_->Capabilities().ok());
  EXPECT_THAT(vm_->Quit(), IsOk());
  EXPECT_TRUE(EndedWell(server_->AwaitEnd())) << server_->Log();
  EXPECT_THAT(folder_.Names(), ElementsAre("vm.sock"));
}

TEST_F(ProcessTest, ASocketPassedBySystemdComesBeforeTheFlag) {
  const UniqueFd socket = ListenOn(SocketPath());
  server_ = std::make_unique<ServerProcess>(
      ServerOptions{.socket_path = folder_ / "other.sock", .activation_socket = socket.get()});
  ASSERT_EQ(server_->AwaitReady(), "");
  EXPECT_TRUE(Vm(SocketPath()).Capabilities().ok());
  EXPECT_THAT(folder_.Names(), ElementsAre("vm.sock"));
}

TEST_F(ProcessTest, WithoutStandardDescriptorsItServesAndEndsAllTheSame) {
  const UniqueFd socket = ListenOn(SocketPath());
  server_ = std::make_unique<ServerProcess>(
      ServerOptions{.arguments = {"-c", R"(exec "$0" <&- >&- 2>&-)", BOTHY_SERVER},
                    .activation_socket = socket.get(),
                    .program = "/bin/sh"});
  ASSERT_EQ(server_->AwaitReady(), "");
  EXPECT_TRUE(Vm(SocketPath()).Capabilities().ok());
  server_->Signal(SIGTERM);
  EXPECT_TRUE(EndedWell(server_->AwaitEnd()));
}

TEST_F(ProcessTest, NobodyReadingItsLogDoesNotStopIt) {
  const std::string log = folder_ / "log";
  ASSERT_EQ(::mkfifo(log.c_str(), 0600), 0);
  const UniqueFd never_read(::open(log.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(never_read.valid());
  server_ = std::make_unique<ServerProcess>(ServerOptions{
      .arguments = {"-c", R"(exec "$0" --ttrpc "$1" 2>"$2")", BOTHY_SERVER, SocketPath(), log},
      .program = "/bin/sh"});
  ASSERT_EQ(server_->AwaitReady(), "");
  Vm vm(SocketPath());
  // Each refusal is a record; a pipe holds some hundreds.
  for (int i = 0; i < 2'000; ++i) EXPECT_FALSE(vm.Create(DirectBoot("/no/such/kernel")).ok());
  EXPECT_TRUE(vm.Capabilities().ok());
  EXPECT_THAT(vm.Quit(), IsOk());
  EXPECT_TRUE(EndedWell(server_->AwaitEnd()));
}

TEST_F(ProcessTest, DieWithParentEndsItWhenItsParentIsKilled) {
  // A shell stands between the test and the server.
  server_ = std::make_unique<ServerProcess>(
      ServerOptions{.arguments = {"-c", R"("$0" --ttrpc "$1" --die-with-parent & exec >&-; wait)",
                                  BOTHY_SERVER, SocketPath()},
                    .program = "/bin/sh"});
  ASSERT_EQ(server_->AwaitReady(), "");
  SerialClient connection(SocketPath());
  ucred peer{};
  socklen_t size = sizeof peer;
  ASSERT_EQ(::getsockopt(connection.fd(), SOL_SOCKET, SO_PEERCRED, &peer, &size), 0);
  ASSERT_NE(peer.pid, server_->pid());
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, peer.pid, 0)));
  ASSERT_TRUE(process.valid());
  server_->Signal(SIGKILL);
  EXPECT_EQ(connection.ReadToEnd(), "");
  pollfd poll = {.fd = process.get(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(::poll(&poll, 1, 100'000), 1);
  EXPECT_THAT(folder_.Names(), IsEmpty());
}

}  // namespace
}  // namespace bothy::integration
