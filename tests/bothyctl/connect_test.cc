// `bothyctl connect`: standard input and output, and a port of a guest that the test plays.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <csignal>
#include <optional>
#include <thread>

#include "support/testing/test_folder.h"
#include "tests/bothyctl/child.h"
#include "tests/bothyctl/fake_guest_ports.h"

namespace bothy::bothyctl {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kLine[] = "CONNECT 5000\n";
constexpr char kAccepted[] = "OK 1073741824\n";

class ConnectTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::vector<std::string> Words() const {
    return {BOTHYCTL, "connect", "--vsock", path_, "5000"};
  }

  const TestFolder folder_;
  const std::string path_ = folder_ / "vsock";
};

TEST_F(ConnectTest, BytesGoBothWaysAndEachEndIsPassedOn) {
  FakeGuestPorts ports(path_);
  Child child(Words());
  const UniqueFd guest = ports.Accept(kLine);
  // What the guest says at once, behind the answer, is its own.
  Say(guest, std::string(kAccepted) + "hello\n");
  child.AwaitOutput("hello\n");
  child.Type("who is there?\n");
  EXPECT_EQ(Hear(guest, 14), "who is there?\n");
  child.CloseInput();
  EXPECT_EQ(HearEnd(guest), "");
  Say(guest, "still here\n");
  child.AwaitOutput("still here\n");
  ::shutdown(guest.get(), SHUT_WR);
  EXPECT_EQ(child.AwaitEnd(), 0);
  EXPECT_EQ(child.output(), "hello\nstill here\n");
  EXPECT_EQ(child.error_output(), "");
}

TEST_F(ConnectTest, AGuestThatSaysNoMoreMayStillListen) {
  FakeGuestPorts ports(path_);
  Child child(Words());
  std::optional<UniqueFd> guest = ports.Accept(kLine);
  Say(*guest, std::string(kAccepted) + "the last\n");
  ::shutdown(guest->get(), SHUT_WR);
  child.AwaitOutput("the last\n");
  child.Type("go on\n");
  EXPECT_EQ(Hear(*guest, 6), "go on\n");
  // When it has gone, nobody waits for the end of the input.
  guest.reset();
  EXPECT_EQ(child.AwaitEnd(), 0);
}

TEST_F(ConnectTest, MuchGoesBothWaysAtOnce) {
  FakeGuestPorts ports(path_);
  Child child(Words());
  const UniqueFd guest = ports.Accept(kLine);
  Say(guest, kAccepted);
  std::string much(4 << 20, '\0');
  for (size_t i = 0; i < much.size(); ++i) much[i] = static_cast<char>(i * 2654435761 >> 13);
  std::string heard;
  std::thread listener([&] { heard = Hear(guest, much.size()); });
  std::thread speaker([&] { Say(guest, much); });
  std::thread typist([&] { child.Type(much); });
  child.AwaitOutput(much);
  for (std::thread* thread : {&listener, &speaker, &typist}) thread->join();
  EXPECT_TRUE(heard == much);
  child.Signal(SIGTERM);
  EXPECT_EQ(child.AwaitEnd(), 128 + SIGTERM);
}

TEST_F(ConnectTest, NobodyThatReadsIsTheEnd) {
  FakeGuestPorts ports(path_);
  Child child(Words());
  const UniqueFd guest = ports.Accept(kLine);
  Say(guest, kAccepted);
  child.Type("ready");
  EXPECT_EQ(Hear(guest, 5), "ready");
  child.CloseOutput();
  Say(guest, "to nobody");
  EXPECT_EQ(HearEnd(guest), "");
  EXPECT_EQ(child.AwaitEnd(), 0);
}

TEST_F(ConnectTest, APortThatIsRefusedIsToldOf) {
  FakeGuestPorts ports(path_);
  Child child(Words());
  (void)ports.Accept(kLine);
  EXPECT_EQ(child.AwaitEnd(), 1);
  EXPECT_EQ(child.error_output(),
            "bothyctl: connect: Unavailable: the guest doesn't accept connections to port 5000\n");
  EXPECT_EQ(child.output(), "");
}

TEST_F(ConnectTest, AnAnswerThatIsNoneIsToldOf) {
  FakeGuestPorts ports(path_);
  for (const char* const answer : {"OK \n", "OK 12x\n", "OK 4294967296\n", "NO 12\n", "OK 12\r\n",
                                   "HTTP/1.1 400 Bad Request\r\n\r\n", "\n", "OK 12"}) {
    Child child(Words());
    {
      const UniqueFd guest = ports.Accept(kLine);
      Say(guest, answer);
      ::shutdown(guest.get(), SHUT_WR);
      EXPECT_EQ(child.AwaitEnd(), 1) << answer;
    }
    EXPECT_THAT(child.error_output(),
                StartsWith("bothyctl: connect: FailedPrecondition: " + path_ + " answers \""))
        << answer;
    EXPECT_EQ(std::count(child.error_output().begin(), child.error_output().end(), '\n'), 1);
    EXPECT_EQ(child.output(), "") << answer;
  }
}

TEST_F(ConnectTest, ASocketThatNobodyServesIsToldOf) {
  Child missing(Words());
  EXPECT_EQ(missing.AwaitEnd(), 1);
  EXPECT_THAT(missing.error_output(), StartsWith("bothyctl: connect: NotFound: "));
  EXPECT_THAT(missing.error_output(), HasSubstr(path_));
  auto listener = UnixListener::Create(path_);
  ASSERT_TRUE(listener.ok());
  listener->TakeSocket().Reset();
  Child stale(Words());
  EXPECT_EQ(stale.AwaitEnd(), 1);
  EXPECT_THAT(stale.error_output(), StartsWith("bothyctl: connect: FailedPrecondition: "));
}

TEST_F(ConnectTest, AServerThatGoesIsTheEnd) {
  FakeGuestPorts ports(path_);
  Child child(Words());
  {
    const UniqueFd guest = ports.Accept(kLine);
    Say(guest, std::string(kAccepted) + "half a li");
    child.AwaitOutput("half a li");
    child.Type("unread");
  }
  EXPECT_EQ(child.AwaitEnd(), 0);
}

TEST_F(ConnectTest, CtrlCEndsItAtAnyTime) {
  FakeGuestPorts ports(path_);
  for (const bool accepted : {false, true}) {
    Child child(Words(), {.terminal = true});
    const UniqueFd guest = ports.Accept(kLine);
    if (accepted) {
      Say(guest, std::string(kAccepted) + "hello");
      child.AwaitOutput("hello");
    }
    child.Type("\x03");
    EXPECT_EQ(child.AwaitEnd(), 128 + SIGINT);
    EXPECT_EQ(HearEnd(guest), "");
    EXPECT_TRUE(SameMode(child.Mode(), child.mode_before()));
  }
}

}  // namespace
}  // namespace bothy::bothyctl
