// The ACPI tables a machine describes itself with: RSDP, XSDT, FADT, FACS, MADT, MCFG, DSDT.
//
// ACPI 6.4; MCFG: PCI Firmware 3.2, 4.1.2. Pure computation from a plain description; what is
// described are the fixed devices of chipset/legacy_ports.h and what TablesConfig adds. The tables
// keep to what a guest must know, for it interprets them at every boot.
//
//   ASSIGN_OR_RETURN(uint64_t rsdp, WriteTables(config, memory));
#pragma once

#include <cstdint>
#include <vector>

#include "memory/guest_memory.h"
#include "memory/layout.h"
#include "support/status.h"

namespace bothy::acpi {

// Where the tables lie in guest-physical address space: the upper part of a PC's BIOS area, where
// guests look for the RSDP without being told. The memory map must reserve it.
inline constexpr memory::AddressRange kTableArea{0xE'0000, 0x2'0000};

// GSIs that PCI's INTx lines are spread over.
inline constexpr uint32_t kFirstPciGsi = 16;
inline constexpr uint32_t kPciGsiCount = 8;

struct Processor {
  uint32_t apic_id = 0;
  bool present = true;  // false: can be plugged in later
};

struct TablesConfig {
  std::vector<Processor> processors;   // index: the processor's ACPI UID
  std::vector<uint32_t> serial_ports;  // which of COM1..COM4 (0..3) exist
  // ECAM (one MiB a bus, from bus 0 on) and the windows of the PCI host bridge.
  memory::AddressRange ecam;
  std::vector<memory::AddressRange> pci_mmio32;
  memory::AddressRange pci_mmio64;  // size 0: none
};

// Builds the tables and writes them to kTableArea; returns the RSDP's guest-physical address.
// ResourceExhausted when they don't fit (thousands of processors).
absl::StatusOr<uint64_t> WriteTables(const TablesConfig& config, memory::GuestMemory& memory);

// The same tables as bytes for kTableArea, the RSDP first.
absl::StatusOr<std::vector<uint8_t>> BuildTables(const TablesConfig& config);

}  // namespace bothy::acpi
