#include "support/trace.h"

#include <gmock/gmock.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "support/event_loop.h"
#include "support/testing/test_folder.h"

namespace bothy {
namespace {

using absl::StatusCode;
using google::protobuf::Struct;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class TraceTest : public ::testing::Test {
 protected:
  ~TraceTest() override { StopTrace(); }

  [[nodiscard]] std::string Text() const {
    const std::ifstream file(path_);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }
  // The events of a text that is an array of them.
  static std::vector<Struct> Parse(const std::string& text) {
    google::protobuf::ListValue list;
    const auto status = google::protobuf::util::JsonStringToMessage(text, &list);
    EXPECT_TRUE(status.ok()) << status.ToString() << "\n" << text;
    std::vector<Struct> events;
    for (const auto& value : list.values()) events.push_back(value.struct_value());
    return events;
  }
  static std::string Field(const Struct& event, const std::string& name) {
    const auto found = event.fields().find(name);
    return found == event.fields().end() ? "" : found->second.string_value();
  }
  // "PHASE NAME" of each but those that name processes and threads.
  static std::vector<std::string> Names(const std::vector<Struct>& events) {
    std::vector<std::string> names;
    for (const Struct& event : events) {
      if (Field(event, "ph") != "M")
        names.push_back(Field(event, "ph") + " " + Field(event, "name"));
    }
    return names;
  }

  const TestFolder folder_;
  const std::string path_ = folder_ / "trace.json";
};

TEST_F(TraceTest, SpansNestAndOperationsGoFromThreadToThread) {
  ASSERT_TRUE(StartTrace(path_).ok());
  TraceOperation operation("call", "CreateVM");
  {
    const TraceSpan outer("test", "outer");
    const TraceSpan inner("test", "inner", "a \"detail\"\n");
  }
  std::thread([moved = std::move(operation)]() mutable {
    SetThreadName("elsewhere");
    moved.End("Cancelled");
    moved.End();
  }).join();
  StopTrace();
  const std::vector<Struct> events = Parse(Text());
  EXPECT_THAT(Names(events), ElementsAre("b CreateVM", "X inner", "X outer", "e CreateVM"));
  std::map<double, std::string> threads;
  for (const Struct& event : events) {
    EXPECT_EQ(event.fields().at("pid").number_value(), ::getpid());
    if (Field(event, "name") != "thread_name") continue;
    threads[event.fields().at("tid").number_value()] =
        event.fields().at("args").struct_value().fields().at("name").string_value();
  }
  EXPECT_EQ(threads.size(), 2U);
  EXPECT_EQ(threads[events.back().fields().at("tid").number_value()], "elsewhere");
  EXPECT_THAT(Text(), HasSubstr(R"("args":{"detail":"a \"detail\"\n"})"));
  EXPECT_THAT(Text(), HasSubstr(R"("args":{"outcome":"Cancelled"})"));
}

TEST_F(TraceTest, WhatEndsSoonerThanItsLeastIsLeftOut) {
  ASSERT_TRUE(StartTrace(path_).ok());
  { const TraceOperation operation("disk", "flush", "", std::chrono::hours(1)); }
  { const TraceOperation operation("disk", "slow", "", std::chrono::nanoseconds(1)); }
  StopTrace();
  EXPECT_THAT(Names(Parse(Text())), ElementsAre("b slow", "e slow"));
}

TEST_F(TraceTest, OffNothingIsRecorded) {
  const TraceSpan before("test", "before");
  EXPECT_FALSE(Tracing());
  ASSERT_TRUE(StartTrace(path_).ok());
  EXPECT_TRUE(Tracing());
  StopTrace();
  { const TraceSpan after("test", "after"); }
  EXPECT_THAT(Names(Parse(Text())), IsEmpty());
}

TEST_F(TraceTest, AProcessThatIsKilledLeavesAllButTheLastBracket) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (!StartTrace(path_).ok()) ::_exit(1);
    for (int i = 0; i < 100; ++i) const TraceSpan span("test", "work");
    while (Text().find(R"("ph":"X")") == std::string::npos) std::this_thread::yield();
    ::_exit(::kill(::getpid(), SIGKILL) == 0 ? 2 : 1);
  }
  ASSERT_GT(child, 0);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  EXPECT_FALSE(Text().ends_with("]\n"));
  EXPECT_THAT(Names(Parse(Text() + "]")), ::testing::Contains("X work"));
}

TEST_F(TraceTest, ItsSizeIsBounded) {
  ASSERT_TRUE(StartTrace(path_, {.max_bytes = 2000}).ok());
  for (int i = 0; i < 1000; ++i) const TraceSpan span("test", "work");
  StopTrace();
  struct stat info {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_LT(info.st_size, 3000);
  EXPECT_THAT(Parse(Text()).back().fields().at("name").string_value(),
              HasSubstr(" events dropped"));
}

TEST_F(TraceTest, ManyThreadsAtOnce) {
  ASSERT_TRUE(StartTrace(path_, {.max_waiting_bytes = size_t{64} << 20}).ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 500; ++i) const TraceSpan span("test", "work");
    });
  }
  for (std::thread& thread : threads) thread.join();
  StopTrace();
  EXPECT_EQ(Names(Parse(Text())).size(), 2000U);
}

TEST_F(TraceTest, OneAtATimeAndInAFileAlone) {
  EXPECT_EQ(StartTrace(folder_.path()).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(StartTrace(folder_ / "no/file").code(), StatusCode::kNotFound);
  const std::string pipe = folder_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_FALSE(StartTrace(pipe).ok());
  EXPECT_FALSE(Tracing());
  ASSERT_TRUE(StartTrace(path_).ok());
  EXPECT_EQ(StartTrace(folder_ / "other").code(), StatusCode::kFailedPrecondition);
  StopTrace();
  EXPECT_TRUE(StartTrace(folder_ / "other").ok());
}

}  // namespace
}  // namespace bothy
