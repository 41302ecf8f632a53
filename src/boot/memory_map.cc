#include "boot/memory_map.h"

#include <algorithm>

#include "acpi/tables.h"
#include "boot/low_memory_map.h"

namespace bothy::boot {

std::vector<MemoryMapEntry> BuildMemoryMap(const memory::Layout& layout) {
  std::vector<MemoryMapEntry> map = {
      {{0, kEbdaBase}, MemoryType::kRam},
      {{kEbdaBase, kVgaHoleBase - kEbdaBase}, MemoryType::kReserved},
      {acpi::kTableArea, MemoryType::kReserved},
  };
  for (const memory::RamRange& ram : layout.ram) {
    const uint64_t base = std::max(ram.guest.base, kHighLoadBase);
    if (base < ram.guest.end()) map.push_back({{base, ram.guest.end() - base}, MemoryType::kRam});
  }
  map.push_back({layout.ecam, MemoryType::kReserved});
  std::sort(map.begin(), map.end(), [](const MemoryMapEntry& a, const MemoryMapEntry& b) {
    return a.range.base < b.range.base;
  });
  return map;
}

}  // namespace bothy::boot
