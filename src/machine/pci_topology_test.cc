#include "machine/pci_topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "hypervisor/testing/fake_vm.h"
#include "support/endian.h"

namespace bothy::machine {
namespace {

using memory::AddressRange;
using memory::kGiB;
using memory::kMiB;

class Nothing final : public chipset::IoDevice {
 public:
  void Read(uint64_t, std::span<uint8_t> data) override {
    std::fill(data.begin(), data.end(), uint8_t{0xA5});
  }
  void Write(uint64_t, std::span<const uint8_t>) override {}
};

class PciTopologyTest : public ::testing::Test {
 protected:
  void Create(uint32_t root_ports, memory::LayoutOptions options = {}) {
    options.ram_bytes = 512 * kMiB;
    options.pci_buses = PciTopology::BusCount(root_ports);
    options.physical_address_bits = 40;
    auto layout = memory::ComputeLayout(options);
    ASSERT_TRUE(layout.ok()) << layout.status();
    layout_ = *layout;
    auto topology = PciTopology::Create(layout_, root_ports, vm_, ports_, mmio_);
    ASSERT_TRUE(topology.ok()) << topology.status();
    topology_ = std::move(topology).value();
  }
  std::unique_ptr<pci::Endpoint> MakeEndpoint(const std::vector<pci::BarOptions>& bars) {
    auto function = std::make_unique<pci::Endpoint>(
        pci::EndpointOptions{
            .name = "test", .ids = {.vendor = 0x1AF4, .device = 0x1041}, .on_bus_reset = nullptr},
        topology_->endpoint_host());
    uint8_t index = 0;
    for (const pci::BarOptions& bar : bars) {
      function->AddBar(index, bar);
      function->AddRegion(index, 0, bar.size_bytes, nothing_);
      index = static_cast<uint8_t>(index + (bar.is_64_bit ? 2 : 1));
    }
    return function;
  }
  uint32_t Config(uint8_t bus, uint8_t device, uint8_t function, uint16_t offset) {
    std::array<uint8_t, 4> bytes{};
    mmio_.Read(layout_.ecam.base + (uint64_t{bus} << 20 | uint64_t{device} << 15 |
                                    uint64_t{function} << 12 | offset),
               bytes);
    return LoadLe<uint32_t>(bytes.data());
  }
  void SetConfig(uint8_t bus, uint8_t device, uint8_t function, uint16_t offset, uint32_t value) {
    std::array<uint8_t, 4> bytes{};
    StoreLe(bytes.data(), value);
    mmio_.Write(layout_.ecam.base + (uint64_t{bus} << 20 | uint64_t{device} << 15 |
                                     uint64_t{function} << 12 | offset),
                bytes);
  }
  bool Answers(uint64_t address) {
    std::array<uint8_t, 1> byte{};
    mmio_.Read(address, byte);
    return byte[0] == 0xA5;
  }

  hypervisor::testing::FakeVm vm_;
  chipset::IoBus ports_;
  chipset::IoBus mmio_;
  memory::Layout layout_;
  Nothing nothing_;
  std::unique_ptr<PciTopology> topology_;
};

bool Inside(const AddressRange& range, const AddressRange& outer) {
  return range.base >= outer.base && range.end() <= outer.end();
}

TEST_F(PciTopologyTest, PortsHaveBusesSlotsAndWindowsOfTheirOwn) {
  Create(16);
  ASSERT_EQ(topology_->ports().size(), 16U);
  for (size_t i = 0; i < 16; ++i) {
    const pci::RootPortOptions& port = topology_->ports()[i]->options();
    EXPECT_EQ(port.slot, i + 1);
    EXPECT_EQ(port.bus, i + 1);
    EXPECT_EQ(port.memory_window.size, 2 * kMiB);
    EXPECT_EQ(port.prefetchable_window.size, 2 * kGiB);
    EXPECT_TRUE(Inside(port.memory_window, layout_.pci_mmio32[0]));
    EXPECT_TRUE(Inside(port.prefetchable_window, layout_.pci_mmio64));
    for (size_t j = 0; j < i; ++j) {
      const pci::RootPortOptions& other = topology_->ports()[j]->options();
      EXPECT_FALSE(port.memory_window.Overlaps(other.memory_window));
      EXPECT_FALSE(port.prefetchable_window.Overlaps(other.prefetchable_window));
    }
    const auto device = static_cast<uint8_t>(30 - i / 8);
    const auto function = static_cast<uint8_t>(i % 8);
    EXPECT_EQ(Config(0, device, function, pci::kClassRegister) >> 16, 0x0604U);
    EXPECT_EQ(Config(0, device, function, pci::kHeaderRegister) >> 16, 0x81U);
  }
  EXPECT_EQ(Config(0, 0, 0, 0), 0x29C0'8086U);
  EXPECT_EQ(Config(0, 28, 0, 0), pci::kAllOnes);
}

TEST_F(PciTopologyTest, APortAloneOnItsDeviceNumberIsNoMultifunctionDevice) {
  Create(9);
  EXPECT_EQ(Config(0, 30, 0, pci::kHeaderRegister) >> 16, 0x81U);
  EXPECT_EQ(Config(0, 29, 0, pci::kHeaderRegister) >> 16, 0x01U);
}

TEST_F(PciTopologyTest, WithoutPortsThereIsOneBus) {
  Create(0);
  EXPECT_EQ(layout_.ecam.size, memory::kEcamBusSize);
  EXPECT_EQ(topology_->FreePort().status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(PciTopologyTest, TheMostPortsFitTheSmallestWindows) {
  Create(kMaxRootPorts, {.low_mmio_gap_bytes = 512 * kMiB, .high_mmio_gap_bytes = 1 * kGiB});
  for (const auto& port : topology_->ports()) {
    EXPECT_EQ(port->options().prefetchable_window.size, 8 * kMiB);
    EXPECT_TRUE(Inside(port->options().memory_window, layout_.pci_mmio32[0]));
  }
  EXPECT_EQ(Config(0, 23, 7, pci::kClassRegister) >> 16, 0x0604U);
}

TEST_F(PciTopologyTest, IntegratedFunctionsGetDeviceNumbersAndAddresses) {
  Create(1);
  const auto a = MakeEndpoint({{.size_bytes = 0x8000}});
  const auto b = MakeEndpoint({{.size_bytes = 0x1000, .is_64_bit = false, .prefetchable = false},
                               {.size_bytes = 0x10'0000}});
  ASSERT_TRUE(topology_->AddIntegrated(*a).ok());
  ASSERT_TRUE(topology_->AddIntegrated(*b).ok());
  EXPECT_EQ(Config(0, 1, 0, 0), 0x1041'1AF4U);
  EXPECT_EQ(Config(0, 2, 0, 0), 0x1041'1AF4U);
  for (const pci::Endpoint* function : {a.get(), b.get()}) {
    for (const pci::Endpoint::Bar& bar : function->bars()) {
      const AddressRange range{bar.address, bar.options.size_bytes};
      EXPECT_EQ(range.base % range.size, 0U);
      EXPECT_TRUE(
          Inside(range, bar.options.is_64_bit ? layout_.pci_mmio64 : layout_.pci_mmio32[0]));
      const pci::RootPortOptions& port = topology_->ports()[0]->options();
      EXPECT_FALSE(range.Overlaps(port.memory_window));
      EXPECT_FALSE(range.Overlaps(port.prefetchable_window));
    }
  }
  SetConfig(0, 1, 0, pci::kCommandRegister, pci::kCommandMemory);
  EXPECT_TRUE(Answers(a->bars()[0].address));
}

TEST_F(PciTopologyTest, BusZeroFillsUp) {
  Create(0);
  std::vector<std::unique_ptr<pci::Endpoint>> functions;
  for (int i = 1; i <= 30; ++i) {
    functions.push_back(MakeEndpoint({{.size_bytes = 0x1000}}));
    ASSERT_TRUE(topology_->AddIntegrated(*functions.back()).ok());
  }
  const auto one_more = MakeEndpoint({{.size_bytes = 0x1000}});
  EXPECT_EQ(topology_->AddIntegrated(*one_more).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(PciTopologyTest, APluggedFunctionLiesInItsPortsWindows) {
  Create(2);
  const auto function = MakeEndpoint({{.size_bytes = 0x1000, .is_64_bit = false},
                                      {.size_bytes = 0x10'0000, .prefetchable = false},
                                      {.size_bytes = 0x4000'0000}});
  const auto port = topology_->FreePort();
  ASSERT_TRUE(port.ok());
  ASSERT_TRUE(topology_->Plug(**port, *function).ok());
  const std::vector<pci::Endpoint::Bar> bars = function->bars();
  const pci::RootPortOptions& options = (*port)->options();
  EXPECT_TRUE(Inside({bars[0].address, 0x1000}, options.memory_window));
  EXPECT_TRUE(Inside({bars[1].address, 0x10'0000}, options.memory_window));
  EXPECT_TRUE(Inside({bars[2].address, 0x4000'0000}, options.prefetchable_window));
  EXPECT_EQ(Config(1, 0, 0, 0), 0x1041'1AF4U);
  const auto next = topology_->FreePort();
  ASSERT_TRUE(next.ok());
  EXPECT_NE(*next, *port);
}

TEST_F(PciTopologyTest, WhatDoesntFitIsRefusedAndThePortStaysFree) {
  Create(1);
  const auto huge =
      MakeEndpoint({{.size_bytes = 0x1000, .is_64_bit = false}, {.size_bytes = 4 * kGiB}});
  pci::RootPort& port = *topology_->ports()[0];
  EXPECT_EQ(topology_->Plug(port, *huge).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(port.occupied());
  EXPECT_EQ(huge->bars()[0].address, 0U);
  const auto small = MakeEndpoint({{.size_bytes = 0x1000}});
  EXPECT_TRUE(topology_->Plug(port, *small).ok());
}

TEST_F(PciTopologyTest, AResetBringsBackWhatFirmwareWouldHaveSetUp) {
  Create(1);
  const auto function = MakeEndpoint({{.size_bytes = 0x8000}});
  ASSERT_TRUE(topology_->Plug(*topology_->ports()[0], *function).ok());
  const uint64_t address = function->bars()[0].address;
  SetConfig(0, 30, 0, 0x18, 0);
  SetConfig(0, 30, 0, 0x24, 0);
  EXPECT_EQ(Config(1, 0, 0, 0), pci::kAllOnes);
  topology_->complex().Reset();
  EXPECT_EQ(Config(1, 0, 0, 0), 0x1041'1AF4U);
  SetConfig(1, 0, 0, pci::kCommandRegister, pci::kCommandMemory);
  EXPECT_TRUE(Answers(address));
}

}  // namespace
}  // namespace bothy::machine
