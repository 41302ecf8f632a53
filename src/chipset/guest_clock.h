// GuestClock: monotonic nanoseconds since power-on that don't count pauses.
//
// Device timers and the PM timer derive from it, so that guest time stands still while the VM is
// paused. Thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace bothy::chipset {

class GuestClock {
 public:
  // Begins stopped, at 0.
  GuestClock() = default;
  [[nodiscard]] uint64_t NowNs() const;
  // Idempotent; called by machine/ around vCPUs running.
  void Start();
  void Stop();

 private:
  // While running: host monotonic ns minus guest ns. While stopped: guest ns. The low bit says
  // which.
  std::atomic<uint64_t> packed_{0};
};

}  // namespace bothy::chipset
