// DeviceUnits: the state units of devices that come and go while the machine runs.
//
// Thread-safe; calls block as long as starting and stopping units does, so they come from the
// life-cycle thread and from that which changes devices, never from the control thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <mutex>
#include <vector>

#include "support/state_unit.h"

namespace bothy::machine {

class DeviceUnits {
 public:
  // Starts the unit if the machine runs. It must be removed before it is destroyed, or outlive
  // this.
  void Add(StateUnit& unit) {
    const std::lock_guard lock(mutex_);
    units_.push_back(&unit);
    if (running()) unit.Start();
  }
  // Stops it if the machine runs.
  void Remove(StateUnit& unit) {
    const std::lock_guard lock(mutex_);
    units_.erase(std::find(units_.begin(), units_.end(), &unit));
    if (running()) unit.Stop();
  }

  void StartAll() {
    const std::lock_guard lock(mutex_);
    running_ = true;
    for (StateUnit* unit : units_) unit->Start();
  }
  void StopAll() {
    const std::lock_guard lock(mutex_);
    running_ = false;
    for (auto unit = units_.rbegin(); unit != units_.rend(); ++unit) (*unit)->Stop();
  }
  void ResetAll() {
    const std::lock_guard lock(mutex_);
    for (StateUnit* unit : units_) unit->Reset();
  }

  // Between StartAll and StopAll. Any thread, without waiting.
  [[nodiscard]] bool running() const { return running_.load(std::memory_order_acquire); }

 private:
  std::mutex mutex_;
  std::vector<StateUnit*> units_;  // guarded by mutex_; in the order they start
  std::atomic<bool> running_{false};
};

}  // namespace bothy::machine
