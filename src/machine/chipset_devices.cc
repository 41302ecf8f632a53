#include "machine/chipset_devices.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "chipset/legacy_ports.h"

namespace bothy::machine {

ChipsetDevices::ChipsetDevices(hypervisor::Vm& vm, EventLoop& control, chipset::PowerSink& power)
    : acpi_pm_(control, clock_, vm.CreateIrqLine(chipset::kSciIrq), power),
      rtc_(control, clock_, vm.CreateIrqLine(chipset::kRtcIrq)),
      reset_control_(power),
      keyboard_reset_(power),
      irq3_(vm.CreateIrqLine(3)),
      irq4_(vm.CreateIrqLine(4)) {}

absl::StatusOr<std::unique_ptr<ChipsetDevices>> ChipsetDevices::Create(const MachineConfig& config,
                                                                       const memory::Layout& layout,
                                                                       hypervisor::Vm& vm,
                                                                       EventLoop& control,
                                                                       chipset::PowerSink& power) {
  auto devices = std::unique_ptr<ChipsetDevices>(new ChipsetDevices(vm, control, power));
  RETURN_IF_ERROR(devices->RegisterFixedDevices());
  RETURN_IF_ERROR(devices->AddPci(config, layout, vm));
  RETURN_IF_ERROR(devices->AddSerialPorts(config, control));
  return devices;
}

absl::Status ChipsetDevices::RegisterFixedDevices() {
  RETURN_IF_ERROR(ports_.Register(chipset::kPmBase, chipset::kPmSize, acpi_pm_));
  RETURN_IF_ERROR(ports_.Register(chipset::kRtcBase, chipset::kRtcSize, rtc_));
  RETURN_IF_ERROR(ports_.Register(chipset::kResetControlPort, 1, reset_control_));
  RETURN_IF_ERROR(ports_.Register(chipset::kKeyboardCommandPort, 1, keyboard_reset_));
  units_ = {&acpi_pm_, &rtc_, &reset_control_};
  return absl::OkStatus();
}

absl::Status ChipsetDevices::AddPci(const MachineConfig& config, const memory::Layout& layout,
                                    hypervisor::Vm& vm) {
  ASSIGN_OR_RETURN(pci_, PciTopology::Create(layout, config.pci.hotplug_ports, vm, ports_, mmio_));
  units_.push_back(&pci_->complex());
  return absl::OkStatus();
}

absl::Status ChipsetDevices::AddSerialPorts(const MachineConfig& config, EventLoop& control) {
  for (size_t i = 0; i < config.serial_ports.size(); ++i) {
    const SerialPortConfig& port = config.serial_ports[i];
    const std::string name = absl::StrCat("com", port.port + 1);
    const chipset::SerialPortResources& resources = chipset::kSerialPorts[port.port];
    auto relay = chipset::SerialRelay::Create(
        control,
        {.name = name, .socket_path = port.socket_path, .connect_only = port.connect_only});
    if (!relay.ok()) {
      return WithContext(relay.status(), absl::StrCat("serial_config.ports[", i, "].socket_path"));
    }
    chipset::SharedIrqLine& irq = resources.irq == 3 ? irq3_ : irq4_;
    auto uart = std::make_unique<chipset::Uart16550>(chipset::Uart16550Options{.name = name},
                                                     irq.NewInput(), **relay);
    RETURN_IF_ERROR(ports_.Register(resources.base, chipset::kSerialPortSize, *uart));
    units_.push_back(uart.get());
    serial_ports_.push_back(
        {.config = port, .relay = std::move(relay).value(), .uart = std::move(uart)});
  }
  return absl::OkStatus();
}

void ChipsetDevices::Inspect(inspect::Node& node) const {
  for (const SerialPort& port : serial_ports_) {
    node.Child(port.uart->name(), [&port](inspect::Node& serial) {
      serial.Value("socket_path", port.config.socket_path);
      serial.Value("connect_only", port.config.connect_only);
      serial.Child("relay", *port.relay);
      serial.Child("uart", *port.uart);
    });
  }
  node.Child("rtc", rtc_);
  node.Child("acpi_pm", acpi_pm_);
}

}  // namespace bothy::machine
