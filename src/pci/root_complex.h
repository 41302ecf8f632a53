// RootComplex: how a guest reaches configuration space, and bus 0.
//
// Two ways in, both plain devices for the I/O buses: mechanism #1 (ports 0xCF8..0xCFF, PCI Local
// Bus 3.0, 3.2.2.3.2) for the first 256 bytes of each function, and ECAM (PCI Express Base 5.0,
// 7.2.2) for all 4 KiB. The guest chooses addresses, sizes and alignment; anything that crosses
// double words is taken apart. What isn't there reads as all ones.
//
// Buses behind root ports are reached by the numbers that the guest gave them; there is one a port.
//
//   RootComplex pci;
//   pci.root_bus().Attach({0, 0}, host_bridge);
//   pci.AttachPort({1, 0}, root_port);
//   ports.Register(kConfigPortsBase, kConfigPortsSize, pci.config_ports());
//   mmio.Register(layout.ecam.base, layout.ecam.size, pci.ecam());
//
// Thread-safe as Bus is.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "chipset/bus.h"
#include "pci/bus.h"
#include "pci/root_port.h"
#include "support/state_unit.h"

namespace bothy::pci {

inline constexpr uint16_t kConfigPortsBase = 0xCF8;
inline constexpr uint16_t kConfigPortsSize = 8;

class RootComplex final : public StateUnit {
 public:
  RootComplex() : config_ports_(*this), ecam_(*this) {}
  RootComplex(const RootComplex&) = delete;
  RootComplex& operator=(const RootComplex&) = delete;

  [[nodiscard]] Bus& root_bus() { return root_bus_; }
  // Puts a port on bus 0, for good, before the guest runs. As Bus::Attach.
  absl::Status AttachPort(DeviceFunction where, RootPort& port);
  // For kConfigPortsBase.
  [[nodiscard]] chipset::IoDevice& config_ports() { return config_ports_; }
  // For a window of 1 MiB a bus, bus 0 first, up to 256.
  [[nodiscard]] chipset::IoDevice& ecam() { return ecam_; }

  // StateUnit: configuration space is passive, only Reset has something to do.
  [[nodiscard]] std::string_view name() const override { return "pci"; }
  void Start() override {}
  void Stop() override {}
  void Reset() override;

 private:
  // CONFIG_ADDRESS and CONFIG_DATA.
  class ConfigPorts final : public chipset::IoDevice {
   public:
    explicit ConfigPorts(RootComplex& complex) : complex_(complex) {}
    void Read(uint64_t offset, std::span<uint8_t> data) override;
    void Write(uint64_t offset, std::span<const uint8_t> data) override;
    void Reset() { address_ = 0; }

   private:
    RootComplex& complex_;
    std::atomic<uint32_t> address_{0};
  };

  class Ecam final : public chipset::IoDevice {
   public:
    explicit Ecam(RootComplex& complex) : complex_(complex) {}
    void Read(uint64_t offset, std::span<uint8_t> data) override;
    void Write(uint64_t offset, std::span<const uint8_t> data) override;

   private:
    RootComplex& complex_;
  };

  // The bus that configuration accesses to number `bus` reach, or null.
  [[nodiscard]] const Bus* Route(uint64_t bus) const;
  // One double word, by its place in ECAM: bus << 20 | device << 15 | function << 12 | offset.
  [[nodiscard]] uint32_t ReadWord(uint64_t ecam_offset) const;
  void WriteWord(uint64_t ecam_offset, uint32_t value, uint32_t enabled) const;
  // Any size and alignment.
  void ReadBytes(uint64_t ecam_offset, std::span<uint8_t> data) const;
  void WriteBytes(uint64_t ecam_offset, std::span<const uint8_t> data) const;

  Bus root_bus_;
  std::vector<const RootPort*> ports_;
  ConfigPorts config_ports_;
  Ecam ecam_;
};

}  // namespace bothy::pci
