// ChipsetDevices: the fixed devices of a machine and the buses they answer on.
//
// Built before the vCPUs, destroyed after them. Everything that a vCPU's port or MMIO access can
// reach hangs off the two buses here.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "chipset/acpi_pm.h"
#include "chipset/bus.h"
#include "chipset/guest_clock.h"
#include "chipset/power.h"
#include "chipset/reset_control.h"
#include "chipset/rtc.h"
#include "chipset/serial/serial_relay.h"
#include "chipset/serial/uart16550.h"
#include "chipset/shared_irq_line.h"
#include "hypervisor/vm.h"
#include "inspect/node.h"
#include "machine/config.h"
#include "machine/pci_topology.h"
#include "memory/layout.h"
#include "support/event_loop.h"
#include "support/state_unit.h"

namespace bothy::machine {

class ChipsetDevices final : public hypervisor::ExitHandler {
 public:
  // Errors name the field ("serial_config.ports[0].socket_path: ..."). Sockets are bound when this
  // returns and removed by the destructor. `vm`, `control` and `power` must outlive the object.
  static absl::StatusOr<std::unique_ptr<ChipsetDevices>> Create(const MachineConfig& config,
                                                                const memory::Layout& layout,
                                                                hypervisor::Vm& vm,
                                                                EventLoop& control,
                                                                chipset::PowerSink& power);

  void PortRead(uint16_t port, std::span<uint8_t> data) override { ports_.Read(port, data); }
  void PortWrite(uint16_t port, std::span<const uint8_t> data) override {
    ports_.Write(port, data);
  }
  void MmioRead(uint64_t address, std::span<uint8_t> data) override { mmio_.Read(address, data); }
  void MmioWrite(uint64_t address, std::span<const uint8_t> data) override {
    mmio_.Write(address, data);
  }

  [[nodiscard]] chipset::GuestClock& clock() { return clock_; }
  [[nodiscard]] PciTopology& pci() { return *pci_; }
  [[nodiscard]] const PciTopology& pci() const { return *pci_; }
  // In the order they start.
  [[nodiscard]] const std::vector<StateUnit*>& units() const { return units_; }
  // A directory a device. Any thread.
  void Inspect(inspect::Node& node) const;

 private:
  ChipsetDevices(hypervisor::Vm& vm, EventLoop& control, chipset::PowerSink& power);
  absl::Status RegisterFixedDevices();
  absl::Status AddPci(const MachineConfig& config, const memory::Layout& layout,
                      hypervisor::Vm& vm);
  absl::Status AddSerialPorts(const MachineConfig& config, EventLoop& control);

  struct SerialPort {
    SerialPortConfig config;
    std::unique_ptr<chipset::SerialRelay> relay;
    std::unique_ptr<chipset::Uart16550> uart;  // after the relay it is attached to
  };

  chipset::IoBus ports_;
  chipset::IoBus mmio_;
  chipset::GuestClock clock_;
  chipset::AcpiPm acpi_pm_;
  chipset::Rtc rtc_;
  chipset::ResetControl reset_control_;
  chipset::KeyboardReset keyboard_reset_;
  std::unique_ptr<PciTopology> pci_;
  chipset::SharedIrqLine irq3_;  // COM2 and COM4
  chipset::SharedIrqLine irq4_;  // COM1 and COM3
  std::vector<SerialPort> serial_ports_;
  std::vector<StateUnit*> units_;
};

}  // namespace bothy::machine
