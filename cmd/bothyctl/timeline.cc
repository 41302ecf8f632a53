#include "cmd/bothyctl/timeline.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cmd/bothyctl/json_form.h"
#include "cmd/bothyctl/output.h"
#include "support/check.h"

namespace bothy::bothyctl {
namespace {

struct Name {
  const char* text;
  const char* json;
};

Name NameOf(TimelineEvent event) {
  switch (event) {
    case TimelineEvent::kServerReady:
      return {"server ready", "server_ready"};
    case TimelineEvent::kCreateAnswered:
      return {"CreateVM answered", "create_answered"};
    case TimelineEvent::kResumeAnswered:
      return {"ResumeVM answered", "resume_answered"};
    case TimelineEvent::kFirstOutput:
      return {"first guest output", "first_output"};
    case TimelineEvent::kInit:
      return {"init", "init"};
    case TimelineEvent::kHalt:
      return {"halt", "halt"};
  }
  CHECK(false);
}

}  // namespace

void Timeline::MarkAt(TimelineEvent event, Clock::time_point when) {
  auto& at = events_[static_cast<size_t>(event)];
  if (!at) at = when;
}

std::vector<Timeline::Entry> Timeline::Entries() const {
  std::vector<Entry> entries;
  for (size_t i = 0; i < kTimelineEvents; ++i) {
    if (!events_[i]) continue;
    const std::chrono::duration<double, std::milli> since = *events_[i] - start_;
    entries.push_back({static_cast<TimelineEvent>(i), since.count(), 0});
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.ms < b.ms; });
  double before = 0;
  for (Entry& entry : entries) {
    entry.delta_ms = entry.ms - before;
    before = entry.ms;
  }
  return entries;
}

std::string Timeline::Text(int fd) const {
  std::vector<Row> rows = {
      {"timeline", absl::StrFormat("%10s", "ms"), absl::StrFormat("%10s", "phase")}};
  for (const Entry& entry : Entries()) {
    rows.push_back({NameOf(entry.event).text, absl::StrFormat("%10.1f", entry.ms),
                    absl::StrFormat("%+10.1f", entry.delta_ms)});
  }
  return Table(rows, /*has_heading=*/true, fd);
}

std::string Timeline::Json(std::string_view halt_reason) const {
  std::string events;
  for (const Entry& entry : Entries()) {
    absl::StrAppend(&events, events.empty() ? "" : ", ",
                    absl::StrFormat("\"%s\": {\"ms\": %.3f, \"delta_ms\": %.3f}",
                                    NameOf(entry.event).json, entry.ms, entry.delta_ms));
  }
  return absl::StrCat("{\"events\": {", events, "}, \"halt_reason\": ", JsonString(halt_reason),
                      "}\n");
}

PatternFinder::PatternFinder(std::string_view pattern)
    : at_line_start_(pattern.starts_with('^')), text_(pattern.substr(at_line_start_ ? 1 : 0)) {
  CHECK(!text_.empty());
  fallback_.assign(text_.size() + 1, 0);
  for (size_t i = 1, border = 0; i < text_.size(); ++i) {
    while (border > 0 && text_[i] != text_[border]) border = fallback_[border];
    if (text_[i] == text_[border]) ++border;
    fallback_[i + 1] = border;
  }
}

bool PatternFinder::Feed(std::string_view piece) {
  if (found_) return true;
  for (const char byte : piece) {
    if (at_line_start_) {
      // Anchored, a match that breaks is over until the next line.
      if (line_start_) {
        matched_ = 0;
        possible_ = true;
      }
      line_start_ = byte == '\n' || byte == '\r';
      if (possible_ && byte == text_[matched_]) {
        ++matched_;
      } else {
        possible_ = false;
      }
      if (possible_ && matched_ == text_.size()) return found_ = true;
    } else {
      while (matched_ > 0 && byte != text_[matched_]) matched_ = fallback_[matched_];
      if (byte == text_[matched_]) ++matched_;
      if (matched_ == text_.size()) return found_ = true;
    }
  }
  return false;
}

}  // namespace bothy::bothyctl
