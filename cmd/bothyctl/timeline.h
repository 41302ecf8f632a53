// Timeline: when a VM's start-up reached which point, in time since bothyctl started.
//
// Events may come in any order and each counts once, the first time. Not thread-safe.
#pragma once

#include <array>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bothy::bothyctl {

enum class TimelineEvent {
  kServerReady,
  kCreateAnswered,
  kResumeAnswered,
  kFirstOutput,
  kInit,
  kHalt,
};
inline constexpr size_t kTimelineEvents = 6;

class Timeline {
 public:
  using Clock = std::chrono::steady_clock;
  explicit Timeline(Clock::time_point start) : start_(start) {}

  void Mark(TimelineEvent event) { MarkAt(event, Clock::now()); }
  void MarkAt(TimelineEvent event, Clock::time_point when);

  // A table of what happened, in order of time: the event, ms since the start, ms since the event
  // before it.
  [[nodiscard]] std::string Text(int fd) const;
  // {"events": {"server_ready": {"ms": 12.345, "delta_ms": 12.345}, …}, "halt_reason":
  // "power-off"}, with a newline; events that didn't happen are left out.
  [[nodiscard]] std::string Json(std::string_view halt_reason) const;

 private:
  struct Entry {
    TimelineEvent event;
    double ms;
    double delta_ms;
  };
  [[nodiscard]] std::vector<Entry> Entries() const;

  const Clock::time_point start_;
  std::array<std::optional<Clock::time_point>, kTimelineEvents> events_;
};

// Finds a text in a stream that comes in pieces, without keeping the stream.
class PatternFinder {
 public:
  // "^TEXT": at the beginning of a line; "TEXT": anywhere. A text is at least one byte.
  explicit PatternFinder(std::string_view pattern);

  // Whether the pattern has been seen, `piece` included. Costs nothing once it has.
  bool Feed(std::string_view piece);

 private:
  const bool at_line_start_;
  const std::string text_;
  std::vector<size_t> fallback_;  // of each matched length, the longest border (Knuth-Morris-Pratt)
  size_t matched_ = 0;
  bool line_start_ = true;  // the next byte begins a line
  bool possible_ = true;    // at_line_start_: this line still matches as far as it has come
  bool found_ = false;
};

}  // namespace bothy::bothyctl
