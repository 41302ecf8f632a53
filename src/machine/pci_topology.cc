#include "machine/pci_topology.h"

#include <algorithm>
#include <bit>
#include <string>

#include "absl/strings/str_cat.h"
#include "support/check.h"

namespace bothy::machine {
namespace {

using memory::AddressRange;
using memory::kMiB;

// Root ports count down from here; 31 is where guests' firmware looks for a PC's LPC bridge.
constexpr uint8_t kLastPortDevice = 30;
constexpr uint8_t kFirstIntegratedDevice = 1;

// What each port passes on. Of the 64-bit window, all ports together get a half.
constexpr uint64_t kPortMemoryBytes = 2 * kMiB;
constexpr uint64_t kMaxPortPrefetchableBytes = 2 * memory::kGiB;

absl::Status NoRoom() {
  return absl::ResourceExhaustedError(
      "pci: no room for the device's memory in the windows that are left");
}

// Takes `size` bytes, a power of two, off the front of `free`, aligned to their size. What
// alignment skips is lost.
bool Take(AddressRange& free, uint64_t size, uint64_t& base) {
  const uint64_t aligned = (free.base + size - 1) & ~(size - 1);
  if (aligned < free.base || aligned > free.end() || size > free.end() - aligned) return false;
  base = aligned;
  free = {aligned + size, free.end() - aligned - size};
  return true;
}

// Places the BARs of `function`, the largest first so that alignment skips nothing, each into the
// first of the ranges that may hold it and does. Nothing is changed when one doesn't fit.
absl::Status PlaceBars(pci::Endpoint& function, std::vector<AddressRange>& below_4gib,
                       AddressRange& prefetchable) {
  std::vector<pci::Endpoint::Bar> bars = function.bars();
  std::stable_sort(bars.begin(), bars.end(), [](const auto& a, const auto& b) {
    return a.options.size_bytes > b.options.size_bytes;
  });
  std::vector<AddressRange> low = below_4gib;
  AddressRange high = prefetchable;
  for (pci::Endpoint::Bar& bar : bars) {
    const uint64_t size = bar.options.size_bytes;
    const bool may_be_high = bar.options.is_64_bit && bar.options.prefetchable;
    bool placed = may_be_high && Take(high, size, bar.address);
    for (size_t i = 0; i < low.size() && !placed; ++i) placed = Take(low[i], size, bar.address);
    if (!placed) return NoRoom();
  }
  for (const pci::Endpoint::Bar& bar : bars) function.SetBarAtReset(bar.index, bar.address);
  below_4gib = low;
  prefetchable = high;
  return absl::OkStatus();
}

}  // namespace

PciTopology::PciTopology(const memory::Layout& layout, hypervisor::Vm& vm, chipset::IoBus& mmio)
    : vm_(vm),
      mmio_(mmio),
      host_bridge_(layout.ecam),
      free_mmio32_(layout.pci_mmio32),
      free_mmio64_(layout.pci_mmio64),
      next_device_(kFirstIntegratedDevice) {}

absl::StatusOr<std::unique_ptr<PciTopology>> PciTopology::Create(const memory::Layout& layout,
                                                                 uint32_t root_ports,
                                                                 hypervisor::Vm& vm,
                                                                 chipset::IoBus& ports,
                                                                 chipset::IoBus& mmio) {
  CHECK(root_ports <= kMaxRootPorts);
  CHECK(layout.ecam.size == BusCount(root_ports) * memory::kEcamBusSize);
  auto topology = std::unique_ptr<PciTopology>(new PciTopology(layout, vm, mmio));
  RETURN_IF_ERROR(ports.Register(pci::kConfigPortsBase, pci::kConfigPortsSize,
                                 topology->complex_.config_ports()));
  RETURN_IF_ERROR(mmio.Register(layout.ecam.base, layout.ecam.size, topology->complex_.ecam()));
  RETURN_IF_ERROR(topology->complex_.root_bus().Attach({0, 0}, topology->host_bridge_));
  RETURN_IF_ERROR(topology->AddPorts(root_ports));
  return topology;
}

absl::Status PciTopology::AddPorts(uint32_t count) {
  if (count == 0) return absl::OkStatus();
  uint64_t prefetchable =
      std::min(std::bit_floor(free_mmio64_.size / 2 / count), kMaxPortPrefetchableBytes);
  if (prefetchable < kMiB) prefetchable = 0;
  for (uint32_t i = 0; i < count; ++i) {
    pci::RootPortOptions options;
    options.slot = static_cast<uint16_t>(i + 1);
    options.bus = static_cast<uint8_t>(i + 1);
    options.multifunction = i / pci::kFunctionsPerDevice * pci::kFunctionsPerDevice + 1 < count;
    options.memory_window.size = kPortMemoryBytes;
    bool placed = false;
    for (size_t range = 0; range < free_mmio32_.size() && !placed; ++range) {
      placed = Take(free_mmio32_[range], kPortMemoryBytes, options.memory_window.base);
    }
    if (!placed) return NoRoom();
    if (prefetchable != 0) {
      options.prefetchable_window.size = prefetchable;
      if (!Take(free_mmio64_, prefetchable, options.prefetchable_window.base)) return NoRoom();
    }
    ports_.push_back(std::make_unique<pci::RootPort>(options, vm_));
    const pci::DeviceFunction where{
        .device = static_cast<uint8_t>(kLastPortDevice - i / pci::kFunctionsPerDevice),
        .function = static_cast<uint8_t>(i % pci::kFunctionsPerDevice)};
    RETURN_IF_ERROR(complex_.AttachPort(where, *ports_.back()));
  }
  return absl::OkStatus();
}

absl::Status PciTopology::AddIntegrated(pci::Endpoint& function) {
  const auto port_devices = static_cast<uint8_t>((ports_.size() + pci::kFunctionsPerDevice - 1) /
                                                 pci::kFunctionsPerDevice);
  if (next_device_ > kLastPortDevice - port_devices) {
    return absl::ResourceExhaustedError("pci: bus 0 is full");
  }
  RETURN_IF_ERROR(PlaceBars(function, free_mmio32_, free_mmio64_));
  function.SetIntegrated(true);
  RETURN_IF_ERROR(complex_.root_bus().Attach({next_device_, 0}, function));
  ++next_device_;
  return absl::OkStatus();
}

absl::StatusOr<pci::RootPort*> PciTopology::FreePort() {
  for (const auto& port : ports_) {
    if (!port->occupied()) return port.get();
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("all ", ports_.size(), " hot-plug slots are taken: remove a device first"));
}

absl::Status PciTopology::Plug(pci::RootPort& port, pci::Endpoint& function) {
  std::vector<AddressRange> low = {port.options().memory_window};
  AddressRange high = port.options().prefetchable_window;
  RETURN_IF_ERROR(PlaceBars(function, low, high));
  function.SetIntegrated(false);
  return port.Plug(function);
}

void PciTopology::Inspect(inspect::Node& node) const {
  node.Child("ports", [this](inspect::Node& all) {
    for (const auto& port : ports_) all.Child(absl::StrCat(port->slot()), *port);
  });
}

}  // namespace bothy::machine
