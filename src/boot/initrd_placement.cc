#include "boot/initrd_placement.h"

#include <algorithm>
#include <vector>

#include "boot/low_memory_map.h"

namespace bothy::boot {
namespace {

using memory::AddressRange;

// RAM at or above 1 MiB, within [0, limit), that isn't `taken`: what lies below 4 GiB first, from
// the top down, then the rest.
std::vector<AddressRange> FreeRanges(const memory::Layout& layout, uint64_t limit,
                                     const AddressRange& taken) {
  std::vector<AddressRange> free;
  auto add = [&](uint64_t base, uint64_t end) {
    if (base < end) free.push_back({base, end - base});
  };
  for (const memory::RamRange& ram : layout.ram) {
    const uint64_t base = std::max(ram.guest.base, kHighLoadBase);
    const uint64_t end = std::min(ram.guest.end(), limit);
    add(std::max(base, taken.end()), end);
    add(base, std::min(end, taken.base));
  }
  std::sort(free.begin(), free.end(), [](const AddressRange& a, const AddressRange& b) {
    const bool a_high = a.base >= memory::k4GiB;
    const bool b_high = b.base >= memory::k4GiB;
    return a_high != b_high ? b_high : a.base > b.base;
  });
  return free;
}

std::optional<uint64_t> HighestFit(const std::vector<AddressRange>& ranges, uint64_t bytes) {
  for (const AddressRange& range : ranges) {
    if (bytes > range.size) continue;
    const uint64_t gpa = (range.end() - bytes) & ~(memory::kPageSize - 1);
    if (gpa >= range.base) return gpa;
  }
  return std::nullopt;
}

}  // namespace

std::optional<uint64_t> PlaceInitrd(const InitrdPlacementOptions& options,
                                    const memory::Layout& layout) {
  for (const uint64_t limit : {options.preferred_limit, options.limit}) {
    const std::optional<uint64_t> gpa =
        HighestFit(FreeRanges(layout, limit, options.kernel), options.initrd_bytes);
    if (gpa) return gpa;
  }
  return std::nullopt;
}

uint64_t UsableRamBytes(const memory::Layout& layout) {
  uint64_t bytes = 0;
  for (const AddressRange& range : FreeRanges(layout, UINT64_MAX, {0, 0})) bytes += range.size;
  return bytes;
}

}  // namespace bothy::boot
