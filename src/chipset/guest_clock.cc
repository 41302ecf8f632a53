#include "chipset/guest_clock.h"

#include <ctime>

namespace bothy::chipset {
namespace {

constexpr uint64_t kRunning = 1;

bool IsRunning(uint64_t packed) { return (packed & kRunning) != 0; }
// Differences are taken in the upper 63 bits, so that they wrap where the value does.
uint64_t Shifted(uint64_t ns) { return ns << 1; }

}  // namespace

uint64_t HostMonotonicNs() {
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t GuestClock::NowNs() const {
  const uint64_t packed = packed_.load(std::memory_order_acquire);
  if (!IsRunning(packed)) return packed >> 1;
  return (Shifted(source_()) - (packed & ~kRunning)) >> 1;
}

void GuestClock::Start() {
  uint64_t packed = packed_.load(std::memory_order_acquire);
  while (!IsRunning(packed)) {
    const uint64_t running = (Shifted(source_()) - packed) | kRunning;
    if (packed_.compare_exchange_weak(packed, running, std::memory_order_acq_rel)) return;
  }
}

void GuestClock::Stop() {
  uint64_t packed = packed_.load(std::memory_order_acquire);
  while (IsRunning(packed)) {
    const uint64_t stopped = (Shifted(source_()) - (packed & ~kRunning)) & ~kRunning;
    if (packed_.compare_exchange_weak(packed, stopped, std::memory_order_acq_rel)) return;
  }
}

}  // namespace bothy::chipset
