#include "net/loop_alarm.h"

#include <sys/timerfd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "support/check.h"

namespace bothy::net {
namespace {

constexpr uint64_t kNsPerSecond = 1'000'000'000;

}  // namespace

uint64_t MonotonicNs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<uint64_t>(now.tv_nsec);
}

absl::StatusOr<std::unique_ptr<LoopAlarm>> LoopAlarm::Create(IoLoop& loop,
                                                             std::function<void()> on_alarm) {
  UniqueFd fd(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  if (!fd) return ErrnoStatus(errno, "timer of a network backend");
  auto alarm = std::unique_ptr<LoopAlarm>(new LoopAlarm(std::move(fd)));
  alarm->watch_ =
      loop.WatchEvent(alarm->fd_.get(), [raw = alarm.get(), on_alarm = std::move(on_alarm)] {
        raw->deadline_ = UINT64_MAX;
        on_alarm();
      });
  return alarm;
}

void LoopAlarm::SetNoLaterThan(uint64_t deadline) {
  if (deadline >= deadline_) return;
  deadline_ = deadline;
  // Zero would disarm it.
  const uint64_t when = std::max<uint64_t>(deadline, 1);
  itimerspec spec{};
  spec.it_value.tv_sec = static_cast<time_t>(when / kNsPerSecond);
  spec.it_value.tv_nsec = static_cast<long>(when % kNsPerSecond);
  CHECK(::timerfd_settime(fd_.get(), TFD_TIMER_ABSTIME, &spec, nullptr) == 0);
}

}  // namespace bothy::net
