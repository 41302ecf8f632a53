// A timeline of what this process does, for chrome://tracing and Perfetto (docs/trace.md).
//
//   const TraceSpan span("memory", "populate RAM");            // until the end of the block
//
//   TraceOperation operation("disk", "open image", path);      // until operation.End(), anywhere
//
// Off unless StartTrace has been called: then a span costs one relaxed atomic load. On, it costs a
// microsecond: a record is made on the calling thread and handed to a thread of its own, "trace",
// that writes it. Nobody waits for the file.
//
// For what happens seldom or takes long. A guest or peer that can make something happen often gives
// TraceOperation a least duration.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "support/status.h"

namespace bothy {

struct TraceOptions {
  // Of the file; what would come after is counted, and the count written at the end.
  uint64_t max_bytes = uint64_t{64} << 20;
  // Of records that wait to be written; further ones are counted, too.
  size_t max_waiting_bytes = size_t{1} << 20;
};

// Begins a trace in `path`, a regular file, which is made or emptied (mode 0600). One at a time.
//   InvalidArgument      something is there that isn't a regular file
//   FailedPrecondition   a trace is under way
//   and what the host says of opening it
absl::Status StartTrace(const std::string& path, const TraceOptions& options = {});
// Writes what waits and completes the file. No trace is no error.
void StopTrace();

namespace trace_internal {
extern std::atomic<bool> enabled;
}  // namespace trace_internal

[[nodiscard]] inline bool Tracing() {
  return trace_internal::enabled.load(std::memory_order_relaxed);
}

// Work of the calling thread, from here to the end of the block. Spans of a thread nest.
//
// `category` and `name` are literals. The detail is any text.
class TraceSpan {
 public:
  TraceSpan(const char* category, const char* name, std::string_view detail = {}) {
    if (Tracing()) [[unlikely]]
      Begin(category, name, detail);
  }
  ~TraceSpan() {
    if (begun_) [[unlikely]]
      End();
  }
  TraceSpan(const TraceSpan&) = delete;
  TraceSpan& operator=(const TraceSpan&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  struct Begun {
    const char* category;
    const char* name;
    std::string detail;
    Clock::time_point at;
  };
  void Begin(const char* category, const char* name, std::string_view detail);
  void End();

  std::optional<Begun> begun_;
};

// Something that begins here and ends in a callback or on another thread. Operations may overlap.
// Not thread-safe, like any value.
class TraceOperation {
 public:
  using Clock = std::chrono::steady_clock;

  TraceOperation() = default;  // none
  // Nothing is recorded of one that ends sooner than `least`.
  TraceOperation(const char* category, std::string_view name, std::string_view detail = {},
                 Clock::duration least = Clock::duration::zero()) {
    if (Tracing()) [[unlikely]]
      Begin(category, name, detail, least);
  }
  ~TraceOperation() { End(); }
  TraceOperation(TraceOperation&& other) noexcept : begun_(std::move(other.begun_)) {
    other.begun_.reset();
  }
  TraceOperation& operator=(TraceOperation&& other) noexcept;

  // It has ended, well or with that outcome. More than once is once.
  void End(std::string_view outcome = {}) {
    if (begun_) [[unlikely]]
      Finish(outcome);
  }

 private:
  struct Begun {
    const char* category;
    std::string name;
    std::string detail;
    Clock::time_point at;
    Clock::duration least;
    uint64_t id;
  };
  void Begin(const char* category, std::string_view name, std::string_view detail,
             Clock::duration least);
  void Finish(std::string_view outcome);

  std::optional<Begun> begun_;
};

}  // namespace bothy
