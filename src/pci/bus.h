// Bus: the functions on one PCI bus.
//
// The root complex has bus 0; a bridge will have one behind it. Configuration accesses come from
// vCPU threads at any time, also while functions come and go. Thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <shared_mutex>

#include "pci/function.h"
#include "support/status.h"

namespace bothy::pci {

class Bus {
 public:
  // AlreadyExists when something is attached there, InvalidArgument when `where` isn't on a bus.
  // `function` must outlive its attachment.
  absl::Status Attach(DeviceFunction where, Function& function);
  // Returns when no vCPU is inside the function any more. NotFound if nothing is attached there.
  absl::Status Detach(DeviceFunction where);

  // As Function's, all ones and ignored where there is none. `where` is on a bus.
  [[nodiscard]] uint32_t ReadConfig(DeviceFunction where, uint16_t offset) const;
  void WriteConfig(DeviceFunction where, uint16_t offset, uint32_t value, uint32_t enabled) const;
  // Resets every function. Only while no vCPU runs.
  void Reset() const;

 private:
  static size_t Index(DeviceFunction where) {
    return size_t{where.device} * kFunctionsPerDevice + where.function;
  }

  // Held shared while a function is called, so that Detach waits for it.
  mutable std::shared_mutex mutex_;
  std::array<Function*, size_t{kDevicesPerBus} * kFunctionsPerDevice> functions_{};
};

}  // namespace bothy::pci
