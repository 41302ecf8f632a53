// Machine: one virtual machine, from its configuration to its end.
//
// The life cycle (Resume, Pause, Restart, destruction) is driven by one thread, which these calls
// may block; it is not the control thread. vmservice/ owns the order of calls and the state the
// wire shows. Stats may be read from any thread at any time between creation and destruction.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>

#include "chipset/power.h"
#include "machine/config.h"
#include "support/status.h"

namespace bothy::machine {

struct MachineStats {
  uint64_t assigned_ram_bytes = 0;
  uint64_t resident_ram_bytes = 0;
  uint64_t reserved_ram_bytes = 0;  // what the host has committed for it
  uint64_t vcpu_runtime_ns = 0;     // CPU time of the vCPU threads
};

// Hears what the guest does to its own power. Called from any thread, at most once between two
// Resumes; the guest has stopped or is about to. Must not call back into the machine.
using PowerObserver = std::function<void(chipset::PowerEvent)>;

class Machine {
 public:
  // Stops everything and frees it; nothing of the machine is left afterwards.
  virtual ~Machine() = default;

  // Runs the guest. Only while paused.
  virtual absl::Status Resume() = 0;
  // Returns when every vCPU has stopped and no device changes guest memory or files. Also called
  // after a power event to bring the rest of the machine to rest. Idempotent.
  virtual absl::Status Pause() = 0;
  // Back to power-on and boot again, still paused: memory cleared, devices reset, the kernel loaded
  // anew.
  virtual absl::Status Restart() = 0;

  [[nodiscard]] virtual MachineStats Stats() const = 0;
};

// Builds a paused machine. All or nothing: a failure leaves the host as it was. Errors begin with
// the field at fault
// ("memory_config.memory_mb: ..."). May block; a stop
// that is requested while it populates RAM has it give up with Cancelled soon.
using MachineFactory = std::function<absl::StatusOr<std::unique_ptr<Machine>>(
    const MachineConfig&, PowerObserver, const std::stop_token&)>;

}  // namespace bothy::machine
