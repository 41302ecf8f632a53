// GuestClock: monotonic nanoseconds since power-on that don't count pauses.
//
// Device timers and the PM timer derive from it, so that guest time stands still while the VM is
// paused. Thread-safe. A read that races Stop may be ahead of the time at which the clock stops;
// vCPUs are stopped by then, and timers of devices too.
#pragma once

#include <atomic>
#include <cstdint>

namespace bothy::chipset {

// A host clock in nanoseconds.
using ClockSource = uint64_t (*)();
// Nanoseconds of CLOCK_MONOTONIC.
uint64_t HostMonotonicNs();

class GuestClock {
 public:
  // Begins stopped, at 0. Tests pass a `source` of their own.
  explicit GuestClock(ClockSource source = HostMonotonicNs) : source_(source) {}
  GuestClock(const GuestClock&) = delete;
  GuestClock& operator=(const GuestClock&) = delete;

  [[nodiscard]] uint64_t NowNs() const;
  // Idempotent; called by machine/ around vCPUs running.
  void Start();
  void Stop();

 private:
  const ClockSource source_;
  // Bits 63..1: while running, host ns minus guest ns (modulo 2^63); while stopped, guest ns.
  // Bit 0: running.
  std::atomic<uint64_t> packed_{0};
};

}  // namespace bothy::chipset
