// DevicesWithoutGuest: a machine's pluggable devices, running, with their buses and RAM; there is
// neither a hypervisor below nor a guest above: all that changes, inspection and I/O go through, on
// a host without KVM.
//
// It has a control thread of its own; Inspect and Change come from any other thread.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <stop_token>
#include <utility>

#include "chipset/bus.h"
#include "hypervisor/testing/fake_vm.h"
#include "inspect/inspection.h"
#include "machine/pci_topology.h"
#include "machine/pluggable_devices.h"
#include "memory/guest_memory.h"
#include "support/check.h"
#include "support/event_loop.h"

namespace bothy::machine {

class DevicesWithoutGuest {
 public:
  explicit DevicesWithoutGuest(const MachineConfig& config) : control_("control") {
    memory::LayoutOptions options;
    options.ram_bytes = 64 * memory::kMiB;
    options.pci_buses = PciTopology::BusCount(config.pci.hotplug_ports);
    options.physical_address_bits = 40;
    const auto layout = memory::ComputeLayout(options);
    CHECK_OK(layout);
    auto memory = memory::GuestMemory::Create({.layout = *layout});
    CHECK_OK(memory);
    memory_ = *std::move(memory);
    auto topology =
        PciTopology::Create(memory_->layout(), config.pci.hotplug_ports, vm_, ports_, mmio_);
    CHECK_OK(topology);
    topology_ = *std::move(topology);
    auto devices = PluggableDevices::Create(config, *topology_, vm_, *memory_, control_.loop());
    CHECK_OK(devices);
    devices_ = *std::move(devices);
    devices_->units().StartAll();
  }
  ~DevicesWithoutGuest() { devices_->units().StopAll(); }
  DevicesWithoutGuest(const DevicesWithoutGuest&) = delete;
  DevicesWithoutGuest& operator=(const DevicesWithoutGuest&) = delete;

  // What a driver drives.
  [[nodiscard]] memory::GuestMemory& memory() { return *memory_; }
  [[nodiscard]] chipset::IoBus& mmio() { return mmio_; }
  [[nodiscard]] hypervisor::testing::FakeVm& vm() { return vm_; }

  // As a machine's.
  void Describe(inspect::Node& root) const {
    root.Child("memory", *memory_);
    root.Child("pci", *topology_);
    root.Child("devices", *devices_);
  }
  // Describes it on the control thread, and waits for all of the answer.
  absl::StatusOr<inspect::Value> Inspect(const inspect::Query& query) {
    std::promise<absl::StatusOr<inspect::Value>> answer;
    control_.loop().Post([&] {
      inspect::Inspection::Start(
          query, [this](inspect::Node& root) { Describe(root); },
          [&answer](absl::StatusOr<inspect::Value> value) { answer.set_value(std::move(value)); });
    });
    return answer.get_future().get();
  }
  // Has `begin` begin a change on the control thread; what it was done with.
  absl::Status Change(const std::function<void(PluggableDevices&, ChangeDone)>& begin) {
    std::promise<absl::Status> done;
    control_.loop().Post([&] {
      begin(*devices_, [&done](absl::Status status) { done.set_value(std::move(status)); });
    });
    return done.get_future().get();
  }

 private:
  hypervisor::testing::FakeVm vm_;
  chipset::IoBus ports_;
  chipset::IoBus mmio_;
  LoopThread control_;
  std::unique_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<PciTopology> topology_;
  std::unique_ptr<PluggableDevices> devices_;
};

}  // namespace bothy::machine
