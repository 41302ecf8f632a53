// AgentClient against a socket whose other end says what an agent, or a hostile guest, would.
#include "tests/guest/agent_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <string_view>

namespace bothy::guest {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);

class AgentClientTest : public testing::Test {
 protected:
  AgentClientTest() : client_(Connect()) {}

  UniqueFd Connect() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    guest_.Reset(ends[1]);
    return UniqueFd(ends[0]);
  }

  void GuestSays(std::string_view text) {
    ASSERT_EQ(write(guest_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }

  std::string GuestHears() {
    char buffer[4096];
    const ssize_t n = read(guest_.get(), buffer, sizeof buffer);
    return n > 0 ? std::string(buffer, static_cast<size_t>(n)) : "";
  }

  UniqueFd guest_;
  AgentClient client_;
};

TEST_F(AgentClientTest, WaitsThroughWhatCameBeforeReady) {
  GuestSays("\r\nnoise of a firmware\r\nready 1\r\n");
  EXPECT_TRUE(client_.WaitReady(kLong).ok());
}

TEST_F(AgentClientTest, HearsWhatWasSaidBeforeTheGuestHalted) {
  AgentClient client(Connect(), UniqueFd(eventfd(1, EFD_CLOEXEC)));
  GuestSays("ready 1\n");
  EXPECT_TRUE(client.WaitReady(kLong).ok());
  EXPECT_EQ(client.Ping(kLong), absl::UnavailableError("the guest has halted"));
}

TEST_F(AgentClientTest, RunsACommandWithItsOutputsApart) {
  GuestSays("out 1 aGVsbG8g\nerr 1 b29wcw==\nout 1 dGhlcmU=\nexit 1 3\n");
  const auto result = client_.Run("echo \"hello there\" 100%\n", kLong);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->status, 3);
  EXPECT_EQ(result->output, "hello there");
  EXPECT_EQ(result->error_output, "oops");
  EXPECT_EQ(GuestHears(), "run 1 echo%20\"hello%20there\"%20100%25%0a\n");
}

TEST_F(AgentClientTest, FollowsACommandUntilTheGuestIsGone) {
  const auto command = client_.Start("count");
  ASSERT_TRUE(command.ok());
  GuestSays("out 1 MQoy\nout 2 MwoK\nout 1 CjMK\nout 1 NAo=\nout 1 NQ");
  EXPECT_TRUE(client_.AwaitOutput(*command, "2\n3\n", kLong).ok());
  guest_.Reset();
  EXPECT_TRUE(absl::IsUnavailable(client_.AwaitOutput(*command, "6\n", kLong)));
  const auto output = client_.OutputToTheEnd(*command, kLong);
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_EQ(*output, "1\n2\n3\n4\n");
}

TEST_F(AgentClientTest, DoesNotWaitForTheOutputOfACommandThatHasEnded) {
  const auto command = client_.Start("true");
  ASSERT_TRUE(command.ok());
  GuestSays("exit 1 0\n");
  EXPECT_TRUE(absl::IsOutOfRange(client_.AwaitOutput(*command, "anything", kLong)));
}

TEST_F(AgentClientTest, KeepsWhatOtherCommandsSayMeanwhile) {
  const auto first = client_.Start("first");
  const auto second = client_.Start("second");
  ASSERT_TRUE(first.ok() && second.ok());
  GuestSays("out 1 YQ==\nout 2 Yg==\nexit 1 0\npong 3\nexit 2 0\n");
  EXPECT_TRUE(client_.Ping(kLong).ok());
  EXPECT_EQ(client_.Finish(*second, kLong)->output, "b");
  EXPECT_EQ(client_.Finish(*first, kLong)->output, "a");
  EXPECT_EQ(client_.Finish(*first, kLong).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(AgentClientTest, ReadsClocksAndFacts) {
  GuestSays("clock 1 1500000000 2500000000 1000000000000000000\n");
  const auto clocks = client_.ReadClocks(kLong);
  ASSERT_TRUE(clocks.ok()) << clocks.status();
  EXPECT_EQ(clocks->monotonic, absl::Milliseconds(1500));
  EXPECT_EQ(clocks->boottime, absl::Milliseconds(2500));
  EXPECT_EQ(clocks->realtime, absl::FromUnixSeconds(1'000'000'000));

  GuestSays("fact 2 kernel 6.1\nfact 2 memory.range 0x0 0x9fbff System RAM\nexit 2 0\n");
  const auto facts = client_.ReadFacts(kLong);
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_THAT(*facts,
              testing::ElementsAre(testing::Pair("kernel", "6.1"),
                                   testing::Pair("memory.range", "0x0 0x9fbff System RAM")));
}

TEST_F(AgentClientTest, GivesUpAtTheDeadline) {
  EXPECT_EQ(client_.Ping(absl::Milliseconds(20)).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(AgentClientTest, SaysThatTheGuestIsGone) {
  guest_.Reset();
  EXPECT_EQ(client_.WaitReady(kLong).code(), absl::StatusCode::kUnavailable);
}

TEST_F(AgentClientTest, RefusesWhatIsNoReply) {
  GuestSays("out 7 not*base64\n");
  EXPECT_EQ(client_.WaitReady(kLong).code(), absl::StatusCode::kDataLoss);
  GuestSays("clock 1 1 2\n");
  EXPECT_EQ(client_.ReadClocks(kLong).status().code(), absl::StatusCode::kDataLoss);
  GuestSays("error 2 no such verb\n");
  EXPECT_EQ(client_.Ping(kLong).code(), absl::StatusCode::kInternal);
  GuestSays(std::string(70'000, 'x'));
  EXPECT_EQ(client_.WaitReady(kLong).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace bothy::guest
