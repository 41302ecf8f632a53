// LoopTimer: a one-shot timer of a device, set on any thread, that fires on an event loop.
//
//   LoopTimer timer(loop, [this] { OnTimer(); });
//   timer.Set(ns_until_alarm);      // replaces what was set before
//
// Setting is cheap, and a guest that sets it in a tight loop queues at most one function. A firing
// may race a Set or Cancel on another thread and come just after it, so the callback looks at the
// device's state, under the device's lock, and does nothing when there is nothing to do.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "support/event_loop.h"

namespace bothy::chipset {

// Thread-safe. The callback may call Set and Cancel, and take locks that are held around them.
class LoopTimer {
 public:
  // `loop` must outlive the timer.
  LoopTimer(EventLoop& loop, std::function<void()> callback);
  // Returns when the callback isn't running and won't run again. The caller holds no lock that the
  // callback takes.
  ~LoopTimer();
  LoopTimer(const LoopTimer&) = delete;
  LoopTimer& operator=(const LoopTimer&) = delete;

  void Set(uint64_t delay_ns);
  void Cancel();

 private:
  class Shared;
  const std::shared_ptr<Shared> shared_;
};

}  // namespace bothy::chipset
