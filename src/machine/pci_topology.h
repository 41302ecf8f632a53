// PciTopology: the machine's PCI buses, what is on them, and the addresses firmware would give out.
//
// Bus 0 has the host bridge, devices that stay for good, and root ports, eight to a device number,
// each with one hot-plug slot on a bus of its own. There is no firmware under direct boot, so this
// numbers the buses, opens the ports' windows and places BARs: the guest finds everything
// configured and with room to plug, and keeps it.
//
//   topology->AddIntegrated(scsi_function);           // bus 0, before the guest runs
//   ASSIGN_OR_RETURN(pci::RootPort * port, topology->FreePort());
//   topology->Plug(*port, pmem_function);              // at any time
//   port->RequestRemoval(...);
//
// Control or life-cycle thread, one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "chipset/bus.h"
#include "hypervisor/vm.h"
#include "inspect/node.h"
#include "memory/layout.h"
#include "pci/endpoint.h"
#include "pci/host_bridge.h"
#include "pci/root_complex.h"
#include "pci/root_port.h"
#include "support/status.h"

namespace bothy::machine {

// More would be more than a guest wants to look for at every boot.
inline constexpr uint32_t kMaxRootPorts = 64;

class PciTopology {
 public:
  // As layout.pci_buses must be for so many ports.
  [[nodiscard]] static uint32_t BusCount(uint32_t root_ports) { return 1 + root_ports; }

  // Everything given outlives the object. InvalidArgument when `layout` has too little room.
  static absl::StatusOr<std::unique_ptr<PciTopology>> Create(const memory::Layout& layout,
                                                             uint32_t root_ports,
                                                             hypervisor::Vm& vm,
                                                             chipset::IoBus& ports,
                                                             chipset::IoBus& mmio);

  // What every Endpoint here is made with.
  [[nodiscard]] pci::EndpointHost endpoint_host() { return {.vm = vm_, .mmio = mmio_}; }

  // Puts a function on bus 0 for good and places its BARs. Only before the guest runs.
  // ResourceExhausted when there is no device number or address space left.
  absl::Status AddIntegrated(pci::Endpoint& function);

  // The first port with nothing in its slot, or ResourceExhausted.
  absl::StatusOr<pci::RootPort*> FreePort();
  // Puts `function` into the slot of `port`, its BARs placed in the port's windows for the guest
  // that finds it there at power-on. ResourceExhausted when they don't fit.
  absl::Status Plug(pci::RootPort& port, pci::Endpoint& function);

  [[nodiscard]] pci::RootComplex& complex() { return complex_; }
  [[nodiscard]] const std::vector<std::unique_ptr<pci::RootPort>>& ports() const { return ports_; }

  void Inspect(inspect::Node& node) const;

 private:
  PciTopology(const memory::Layout& layout, hypervisor::Vm& vm, chipset::IoBus& mmio);
  absl::Status AddPorts(uint32_t count);

  hypervisor::Vm& vm_;
  chipset::IoBus& mmio_;
  pci::RootComplex complex_;
  pci::HostBridge host_bridge_;
  std::vector<std::unique_ptr<pci::RootPort>> ports_;
  // What nobody has been given yet.
  std::vector<memory::AddressRange> free_mmio32_;
  memory::AddressRange free_mmio64_;
  uint8_t next_device_;  // of bus 0, for the next integrated function
};

}  // namespace bothy::machine
