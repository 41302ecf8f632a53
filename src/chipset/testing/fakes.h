// Fakes that tests and fuzzers of chipset devices share.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "chipset/bus.h"
#include "chipset/power.h"
#include "hypervisor/interrupts.h"
#include "support/event_loop.h"

namespace bothy::chipset {

// The level of a line and how often it rose; outlives the line. Thread-safe.
class FakeIrq {
 public:
  // A line that ends here.
  [[nodiscard]] std::unique_ptr<hypervisor::IrqLine> NewLine() {
    return std::make_unique<Line>(state_);
  }
  [[nodiscard]] bool asserted() const {
    std::lock_guard lock(state_->mutex);
    return state_->asserted;
  }
  [[nodiscard]] int edges() const {
    std::lock_guard lock(state_->mutex);
    return state_->edges;
  }

 private:
  struct State {
    std::mutex mutex;
    bool asserted = false;
    int edges = 0;
  };
  class Line : public hypervisor::IrqLine {
   public:
    explicit Line(std::shared_ptr<State> state) : state_(std::move(state)) {}
    void Set(bool asserted) override {
      std::lock_guard lock(state_->mutex);
      if (asserted && !state_->asserted) ++state_->edges;
      state_->asserted = asserted;
    }

   private:
    const std::shared_ptr<State> state_;
  };
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

class FakePowerSink : public PowerSink {
 public:
  void OnPowerEvent(PowerEvent event) override { events.push_back(event); }
  std::vector<PowerEvent> events;
};

// Accesses as a vCPU makes them.
template <typename T>
T ReadIo(IoDevice& device, uint64_t offset) {
  T value = 0;
  device.Read(offset, {reinterpret_cast<uint8_t*>(&value), sizeof value});
  return value;
}
template <typename T>
void WriteIo(IoDevice& device, uint64_t offset, T value) {
  device.Write(offset, {reinterpret_cast<const uint8_t*>(&value), sizeof value});
}

// Runs handlers of a loop that has no thread until `done`; false if that took a minute.
inline bool RunUntil(EventLoop& loop, const std::function<bool()>& done) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    loop.context().run_one_until(deadline);
  }
  return true;
}

}  // namespace bothy::chipset
