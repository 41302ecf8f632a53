#include "machine/chipset_devices.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "chipset/legacy_ports.h"

namespace bothy::machine {

absl::StatusOr<std::unique_ptr<ChipsetDevices>> ChipsetDevices::Create(const MachineConfig& config,
                                                                       hypervisor::Vm& vm,
                                                                       EventLoop& control,
                                                                       chipset::PowerSink& power) {
  auto devices = std::unique_ptr<ChipsetDevices>(new ChipsetDevices);
  devices->irq3_ = std::make_unique<chipset::SharedIrqLine>(vm.CreateIrqLine(3));
  devices->irq4_ = std::make_unique<chipset::SharedIrqLine>(vm.CreateIrqLine(4));
  (void)power;
  RETURN_IF_ERROR(devices->AddSerialPorts(config, control));
  return devices;
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
    chipset::SharedIrqLine& irq = resources.irq == 3 ? *irq3_ : *irq4_;
    auto uart = std::make_unique<chipset::Uart16550>(chipset::Uart16550Options{.name = name},
                                                     irq.NewInput(), **relay);
    RETURN_IF_ERROR(ports_.Register(resources.base, chipset::kSerialPortSize, *uart));
    units_.push_back(uart.get());
    serial_ports_.push_back({.relay = std::move(relay).value(), .uart = std::move(uart)});
  }
  return absl::OkStatus();
}

}  // namespace bothy::machine
