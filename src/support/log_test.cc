#include "support/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "support/check.h"
#include "support/unique_fd.h"

namespace bothy {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Puts a pipe in standard error's place.
class LogTest : public ::testing::Test {
 protected:
  LogTest() : saved_(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)) {
    int fds[2];
    CHECK(::pipe2(fds, O_CLOEXEC) == 0);
    read_end_.Reset(fds[0]);
    CHECK(::fcntl(fds[0], F_SETFL, O_NONBLOCK) == 0);
    CHECK(::dup2(fds[1], STDERR_FILENO) == STDERR_FILENO);
    CHECK(::close(fds[1]) == 0);
    ConfigureLogging({});
  }
  ~LogTest() override {
    CHECK(::dup2(saved_.get(), STDERR_FILENO) == STDERR_FILENO);
    ConfigureLogging({});
  }

  // What is in the pipe now.
  std::string Read() {
    std::string text;
    char buffer[8192];
    for (ssize_t size; (size = ::read(read_end_.get(), buffer, sizeof buffer)) > 0;) {
      text.append(buffer, static_cast<size_t>(size));
    }
    return text;
  }

 private:
  UniqueFd saved_;
  UniqueFd read_end_;
};

TEST_F(LogTest, ARecordIsALine) {
  LogInfo("test", "one\ntwo\x1b[2J");
  const std::string text = Read();
  EXPECT_THAT(text, HasSubstr("test: one\\ntwo\\u001b[2J\n"));
  EXPECT_EQ(text.find('\n'), text.size() - 1);
}

TEST_F(LogTest, RecordsCarryTheLogId) {
  SetLogId("vm-1");
  LogInfo("test", "hello");
  SetLogId("");
  LogInfo("test", "bye");
  const std::string text = Read();
  EXPECT_THAT(text, HasSubstr("[vm-1] test: hello"));
  EXPECT_THAT(text, Not(HasSubstr("[vm-1] test: bye")));
}

TEST_F(LogTest, NobodyReadingDropsRecordsAndSaysSoLater) {
  const std::string filler(1000, 'x');
  for (int i = 0; i < 1000; ++i) LogInfo("test", filler);
  EXPECT_THAT(Read(), Not(HasSubstr("dropped")));
  LogInfo("test", "again");
  const std::string text = Read();
  EXPECT_THAT(text, HasSubstr("records dropped"));
  EXPECT_THAT(text, HasSubstr("again"));
  LogInfo("test", "once more");
  EXPECT_THAT(Read(), Not(HasSubstr("dropped")));
}

TEST_F(LogTest, LongRecordsAreCut) {
  LogInfo("test", std::string(100'000, 'y'));
  const std::string text = Read();
  EXPECT_LE(text.size(), kMaxLogRecordBytes);
  EXPECT_GT(text.size(), kMaxLogRecordBytes / 2);
  EXPECT_TRUE(text.ends_with("...\n"));
}

TEST_F(LogTest, InJsonEverythingIsJson) {
  ConfigureLogging({.format = LogFormat::kJson});
  LogInfo("test", std::string(100'000, '"'));
  EXPECT_TRUE(Read().ends_with("...\"}\n"));
  for (int i = 0; i < 1000; ++i) LogInfo("test", std::string(1000, 'x'));
  Read();
  LogInfo("test", "again");
  EXPECT_THAT(Read(), HasSubstr("records dropped: nobody read them\"}\n{"));
}

TEST_F(LogTest, EveryJsonRecordHasTheSameFields) {
  ConfigureLogging({.format = LogFormat::kJson});
  SetLogId("vm \"1\"\xFF");
  LogInfo("test", "a\nb\xFF");
  for (int i = 0; i < 1000; ++i) LogInfo("test", std::string(1000, 'x'));
  std::string text = Read();
  text.resize(text.find('\n') + 1);
  LogInfo("test", "again");
  text += Read();
  SetLogId("");
  size_t records = 0;
  for (size_t begin = 0; begin < text.size(); ++records) {
    const size_t end = text.find('\n', begin);
    google::protobuf::Struct record;
    const std::string line = text.substr(begin, end - begin);
    ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(line, &record).ok()) << line;
    EXPECT_EQ(record.fields().at("log_id").string_value(), "vm \"1\"\xEF\xBF\xBD") << line;
    for (const char* const field : {"time_us", "level", "thread", "component", "message"}) {
      EXPECT_TRUE(record.fields().contains(field)) << line;
    }
    begin = end + 1;
  }
  EXPECT_EQ(records, 3U);  // the first, the notice of those that were dropped, and the last
}

TEST(LogTerminalTest, ATerminalThatNobodyReadsIsNotWaitedFor) {
  const UniqueFd saved(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3));
  int master = -1;
  int terminal = -1;
  ASSERT_EQ(::openpty(&master, &terminal, nullptr, nullptr, nullptr), 0);
  const UniqueFd reader(master);
  ASSERT_EQ(::dup2(terminal, STDERR_FILENO), STDERR_FILENO);
  ::close(terminal);
  ConfigureLogging({});
  for (int i = 0; i < 1000; ++i) LogInfo("test", std::string(300, 'x'));
  ASSERT_EQ(::dup2(saved.get(), STDERR_FILENO), STDERR_FILENO);
  ConfigureLogging({});
}

TEST_F(LogTest, TheLimiterTellsHowManyItKeptBack) {
  LogLimiter limiter(2, std::chrono::hours(1));
  for (int i = 0; i < 10; ++i) limiter.Log(LogLevel::kInfo, "test", "again and again");
  const std::string text = Read();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
}

TEST_F(LogTest, WhatTheLimiterLetsThroughAndWhatItKeptBackAreAll) {
  LogLimiter limiter(1, std::chrono::milliseconds(1));
  constexpr std::string_view kNotice = " earlier records dropped)";
  size_t logged = 0;
  size_t accounted = 0;
  // The record that says so comes with the first one of a later millisecond.
  for (bool told = false; !told;) {
    limiter.Log(LogLevel::kInfo, "test", "again and again");
    ++logged;
    const std::string line = Read();
    if (line.empty()) continue;
    ++accounted;
    const size_t notice = line.find(kNotice);
    told = notice != std::string::npos;
    if (told) accounted += std::stoul(line.substr(line.rfind('(', notice) + 1));
  }
  EXPECT_EQ(accounted, logged);
}

}  // namespace
}  // namespace bothy
