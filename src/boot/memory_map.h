// The memory map a directly booted kernel is told (e820 entries, PVH's memory map).
#pragma once

#include <cstdint>
#include <vector>

#include "memory/layout.h"

namespace bothy::boot {

// The numbers are those of ACPI's address range types (ACPI 6.4, table 15.4), which e820 and PVH
// use as well.
enum class MemoryType : uint32_t { kRam = 1, kReserved = 2 };

struct MemoryMapEntry {
  memory::AddressRange range;
  MemoryType type = MemoryType::kRam;
};

// Ascending and disjoint: RAM without the EBDA, the VGA hole and the BIOS area, which holds the
// ACPI tables and is reserved, like ECAM.
std::vector<MemoryMapEntry> BuildMemoryMap(const memory::Layout& layout);

}  // namespace bothy::boot
