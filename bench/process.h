// The processes that benchmarks start and time.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy::bench {

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;

inline int64_t Nanoseconds(Clock::duration duration) {
  return std::chrono::nanoseconds(duration).count();
}

// Ends the benchmark with a line on standard error.
[[noreturn]] void Fail(std::string_view what);

// The value of a call that must have succeeded.
template <typename T>
T Require(absl::StatusOr<T> result, std::string_view call) {
  if (!result.ok()) Fail(std::string(call) + ": " + std::string(result.status().message()));
  return *std::move(result);
}

// A child process that is killed, if it still runs, when the object goes; it also ends with the
// benchmark, however that ends.
class Process {
 public:
  // Runs `command`, found by $PATH, with its standard output in a pipe and its standard error in
  // `log`. Standard input is empty.
  Process(const std::vector<std::string>& command, const std::string& log);
  Process(Process&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)),
        started_(other.started_),
        output_(std::move(other.output_)) {}
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  Process& operator=(Process&&) = delete;
  ~Process() { Kill(); }

  [[nodiscard]] pid_t pid() const { return pid_; }
  // The moment before the fork.
  [[nodiscard]] Time started() const { return started_; }
  // The read end of its standard output.
  [[nodiscard]] int output() const { return output_.get(); }

  // Waits for end-of-file on its standard output; false when `deadline` comes first.
  bool WaitForEndOfOutput(Time deadline);
  // Waits for its end: the exit status, or none when a signal ended it.
  std::optional<int> Wait();
  void Kill();

 private:
  pid_t pid_ = -1;
  Time started_;
  UniqueFd output_;
};

// A new folder under $TMPDIR or /tmp, removed with all that is in it.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] std::string File(std::string_view name) const;

 private:
  std::string path_;
};

// Waits until `fd` is readable (or at its end); false when `deadline` comes first.
bool WaitReadable(int fd, Time deadline);

// The last lines of a file, for error messages.
std::string Tail(const std::string& path);

}  // namespace bothy::bench
