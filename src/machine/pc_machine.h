// PcMachine: the machine a guest sees (docs/machine.md): an x86-64 PC with PCI Express, in-kernel
// interrupt controllers, COM ports, RTC, ACPI power management, booted directly into a kernel.
#pragma once

#include <memory>

#include "hypervisor/vm.h"
#include "machine/machine.h"
#include "support/event_loop.h"

namespace bothy::machine {

// A factory that opens the host's hypervisor when the first machine is made and keeps it. `control`
// runs the machine's timers and serial sockets; it must outlive the factory and its machines.
[[nodiscard]] MachineFactory PcMachineFactory(EventLoop& control);

}  // namespace bothy::machine
