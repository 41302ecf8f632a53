// Layout: where RAM and MMIO windows lie in guest-physical address space.
//
// A pure computation over numbers: what memory_config asks for, checked against what the CPU can
// address. All values are bytes; all ranges are page-aligned half-open [base, base + size).
//
//   0                 low RAM                      up to 4 GiB - low MMIO gap
//   4 GiB - gap       32-bit MMIO window           PCI BARs below ecam, ECAM, then I/O APIC, LAPIC
//   4 GiB             high RAM, first part         up to the 64-bit MMIO window
//   high MMIO base    64-bit MMIO window           64-bit PCI BARs
//   behind it         high RAM that didn't fit below the window
//   above that        memory of devices that is no BAR, up to the CPU's limit
#pragma once

#include <cstdint>
#include <vector>

#include "inspect/node.h"
#include "support/status.h"

namespace bothy::memory {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;
inline constexpr uint64_t kPageSize = 4096;
inline constexpr uint64_t k4GiB = 4 * kGiB;

struct AddressRange {
  uint64_t base = 0;
  uint64_t size = 0;
  [[nodiscard]] uint64_t end() const { return base + size; }
  [[nodiscard]] bool Overlaps(const AddressRange& other) const {
    return base < other.end() && other.base < end();
  }
  bool operator==(const AddressRange&) const = default;
};

// One run of guest RAM and where it lies in the RAM file.
struct RamRange {
  AddressRange guest;
  uint64_t file_offset = 0;
};

struct LayoutOptions {
  uint64_t ram_bytes = 0;           // at least 1 MiB, a multiple of the page size
  uint64_t max_ram_bytes = 0;       // all RAM that can ever be plugged; 0: ram_bytes
  uint64_t low_mmio_gap_bytes = 0;  // 0: 1 GiB; else 512..3072 MiB
  uint64_t high_mmio_base_bytes =
      0;  // 0: above all RAM that can ever be plugged; else at least 4 GiB
  uint64_t high_mmio_gap_bytes = 0;  // 0: 64 GiB or what fits
  // Buses that ECAM reaches, 1..256. No more than the machine can have: guests look for devices on
  // every one, and each look is an exit.
  uint32_t pci_buses = 1;
  uint32_t physical_address_bits = 0;  // of the guest's CPU, 36..52
};

struct Layout {
  std::vector<RamRange> ram;  // ascending, covers the RAM file from 0 to ram_bytes without holes
  uint64_t ram_bytes = 0;
  AddressRange low_mmio;  // the whole 32-bit window, ends at 4 GiB
  AddressRange ecam;      // PCI configuration space, inside low_mmio
  // What BARs may use of low_mmio: below and above ECAM; the first is empty when the window begins
  // at ECAM.
  std::vector<AddressRange> pci_mmio32;
  AddressRange pci_mmio64;  // the 64-bit window
  // Above all the rest, up to the CPU's limit: memory of devices that is no BAR (persistent
  // memory). Empty when nothing is left.
  AddressRange device_memory;

  void Inspect(inspect::Node& node) const;
};

// Fixed addresses inside the low MMIO window.
inline constexpr uint64_t kEcamBase = 0xE000'0000;
inline constexpr uint64_t kEcamReserved = 256 * kMiB;  // room for 256 buses
inline constexpr uint64_t kEcamBusSize = 1 * kMiB;
inline constexpr uint64_t kIoApicBase = 0xFEC0'0000;
inline constexpr uint64_t kLocalApicBase = 0xFEE0'0000;
// Three pages KVM needs on Intel hosts for real mode, and one for its identity map
// (KVM_SET_TSS_ADDR).
inline constexpr uint64_t kKvmTssBase = 0xFFFB'D000;
inline constexpr uint64_t kKvmIdentityMapBase = 0xFFFB'C000;

// The layout, or InvalidArgument with a message that begins with the memory_config field at fault
// ("high_mmio_base_in_mb: ..."), so that the caller only has to put the path before it.
absl::StatusOr<Layout> ComputeLayout(const LayoutOptions& options);

}  // namespace bothy::memory
