// LoopAlarm: a one-shot timer on an I/O loop. Loop thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "support/io_loop.h"
#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy::net {

// CLOCK_MONOTONIC, in nanoseconds.
[[nodiscard]] uint64_t MonotonicNs();

class LoopAlarm {
 public:
  static absl::StatusOr<std::unique_ptr<LoopAlarm>> Create(IoLoop& loop,
                                                           std::function<void()> on_alarm);
  LoopAlarm(const LoopAlarm&) = delete;
  LoopAlarm& operator=(const LoopAlarm&) = delete;

  // Goes off at MonotonicNs() `deadline`, or at once when that has passed. One that is set for an
  // earlier time stays: it costs nothing but a call for nothing, and a system call less here.
  void SetNoLaterThan(uint64_t deadline);

 private:
  explicit LoopAlarm(UniqueFd fd) : fd_(std::move(fd)) {}

  const UniqueFd fd_;
  uint64_t deadline_ = UINT64_MAX;
  std::unique_ptr<IoLoop::Watch> watch_;
};

}  // namespace bothy::net
