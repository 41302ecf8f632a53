// Power events: what a guest does that ends or restarts its machine.
#pragma once

#include <cstdint>
#include <string_view>

namespace bothy::chipset {

enum class PowerEvent : uint8_t {
  kPowerOff,          // ACPI S5
  kReset,             // 0xCF9, the ACPI reset register, the keyboard controller's reset line
  kTripleFault,       // a vCPU shut down
  kEmulationFailure,  // the hypervisor couldn't execute what the guest asked for
};

// Receives power events. Called on the vCPU thread that caused one, which stops running guest code
// as soon as the call returns; must not block. The first event wins, later ones of the same run are
// ignored.
class PowerSink {
 public:
  virtual ~PowerSink() = default;
  virtual void OnPowerEvent(PowerEvent event) = 0;
};

}  // namespace bothy::chipset
