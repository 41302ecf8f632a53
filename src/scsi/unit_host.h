// UnitHost: what a logical unit needs of the target that it is part of.
//
// Loop thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "support/check.h"

namespace bothy::scsi {

class UnitHost {
 public:
  UnitHost() = default;
  UnitHost(const UnitHost&) = delete;
  UnitHost& operator=(const UnitHost&) = delete;

  // The LUNs of all units, ascending.
  [[nodiscard]] virtual std::vector<uint16_t> Inventory() const = 0;
  // The driver has been told of all units: none needs to say any more that they have changed.
  virtual void OnInventoryReported() = 0;
  // Runs `call` soon, on this thread, in order, with nothing of the target or a disk on the stack.
  virtual void Post(std::function<void()> call) = 0;

  // While paused no command starts.
  [[nodiscard]] bool paused() const { return paused_; }
  // A command starts; one has ended.
  void Enter() { ++running_; }
  void Leave() {
    CHECK(running_ > 0);
    if (--running_ == 0 && paused_) OnQuiet();
  }

 protected:
  ~UnitHost() = default;
  // Nothing runs any more, and nothing will before paused_ is cleared.
  virtual void OnQuiet() = 0;

  bool paused_ = false;
  size_t running_ = 0;  // commands under way in all units, those being detached included
};

}  // namespace bothy::scsi
