#include "cmd/bothyctl/timeline.h"

#include <gtest/gtest.h>

namespace bothy::bothyctl {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr Timeline::Clock::time_point kStart{std::chrono::hours(1)};

TEST(TimelineTest, ShowsTimesSinceTheStartAndBetween) {
  Timeline timeline(kStart);
  timeline.MarkAt(TimelineEvent::kServerReady, kStart + milliseconds(10));
  timeline.MarkAt(TimelineEvent::kCreateAnswered, kStart + microseconds(12'500));
  EXPECT_EQ(timeline.Text(-1),
            "timeline                   ms       phase\n"
            "server ready             10.0       +10.0\n"
            "CreateVM answered        12.5        +2.5\n");
}

TEST(TimelineTest, CountsTheFirstTimeOnly) {
  Timeline timeline(kStart);
  timeline.MarkAt(TimelineEvent::kInit, kStart + milliseconds(1));
  timeline.MarkAt(TimelineEvent::kInit, kStart + milliseconds(2));
  EXPECT_EQ(timeline.Json(""),
            "{\"events\": {\"init\": {\"ms\": 1.000, \"delta_ms\": 1.000}}, \"halt_reason\": "
            "\"\"}\n");
}

TEST(TimelineTest, OrdersByTime) {
  Timeline timeline(kStart);
  // The guest may print before ResumeVM's answer has been read.
  timeline.MarkAt(TimelineEvent::kResumeAnswered, kStart + milliseconds(9));
  timeline.MarkAt(TimelineEvent::kFirstOutput, kStart + milliseconds(8));
  timeline.MarkAt(TimelineEvent::kHalt, kStart + milliseconds(20));
  EXPECT_EQ(timeline.Json("power-off"),
            "{\"events\": {\"first_output\": {\"ms\": 8.000, \"delta_ms\": 8.000}, "
            "\"resume_answered\": {\"ms\": 9.000, \"delta_ms\": 1.000}, "
            "\"halt\": {\"ms\": 20.000, \"delta_ms\": 11.000}}, "
            "\"halt_reason\": \"power-off\"}\n");
}

// Whether the pattern is found, in whatever two pieces the text comes.
bool Finds(std::string_view pattern, std::string_view text) {
  PatternFinder whole(pattern);
  const bool found = whole.Feed(text);
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    PatternFinder finder(pattern);
    finder.Feed(text.substr(0, cut));
    EXPECT_EQ(finder.Feed(text.substr(cut)), found)
        << pattern << " in " << text << " cut at " << cut;
  }
  PatternFinder bytewise(pattern);
  bool last = false;
  for (const char c : text) last = bytewise.Feed(std::string_view(&c, 1));
  EXPECT_EQ(last, found);
  return found;
}

TEST(PatternFinderTest, FindsALineThatBeginsSo) {
  EXPECT_TRUE(Finds("^bothy-guest: init", "bothy-guest: init 12 34\r\n"));
  EXPECT_TRUE(Finds("^bothy-guest: init", "[    0.1] booting\r\nbothy-guest: init"));
  EXPECT_TRUE(Finds("^init", "in\ninit"));
  EXPECT_TRUE(Finds("^init", "a\rinit"));
  EXPECT_TRUE(Finds("^aab", "aaa\naab"));
}

TEST(PatternFinderTest, LeavesALineThatOnlyContainsIt) {
  EXPECT_FALSE(Finds("^init", "exec init\n"));
  EXPECT_FALSE(Finds("^init", "iinit\n"));
  EXPECT_FALSE(Finds("^init", "ini\nt\n"));
  EXPECT_FALSE(Finds("^aab", "aaab\n"));
}

TEST(PatternFinderTest, FindsTextAnywhere) {
  EXPECT_TRUE(Finds("login:", "debian login: "));
  EXPECT_TRUE(Finds("aab", "aaaab"));
  EXPECT_TRUE(Finds("abcabd", "abcabcabd"));
  EXPECT_TRUE(Finds("\n> ", "x\n> "));
  EXPECT_FALSE(Finds("login:", "logi\nn:"));
  EXPECT_FALSE(Finds("abcabd", "abcabcab"));
}

TEST(PatternFinderTest, StaysFound) {
  PatternFinder finder("x");
  EXPECT_TRUE(finder.Feed("x"));
  EXPECT_TRUE(finder.Feed("nothing"));
}

}  // namespace
}  // namespace bothy::bothyctl
