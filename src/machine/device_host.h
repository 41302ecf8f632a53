// What devices that can be plugged in need of their machine. All of it outlives them.
#pragma once

#include <cstdint>

#include "hypervisor/vm.h"
#include "machine/device_units.h"
#include "machine/pci_topology.h"
#include "memory/guest_memory.h"
#include "support/event_loop.h"

namespace bothy::machine {

struct DeviceHost {
  PciTopology& pci;
  hypervisor::Vm& vm;
  memory::GuestMemory& memory;
  DeviceUnits& units;
  // The thread on which devices are changed: it may block for as long as the host takes, never for
  // the guest.
  EventLoop& changes;
  uint32_t processors = 1;
};

}  // namespace bothy::machine
