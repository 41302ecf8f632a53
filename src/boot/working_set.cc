#include "boot/working_set.h"

#include <algorithm>

namespace bothy::boot {

using memory::AddressRange;
using memory::kMiB;

namespace {

constexpr uint64_t kSmallestLinux = 8 * kMiB;
// What the allocator hands out until init runs, and at most which part of RAM may be spent on a
// guess at it.
constexpr uint64_t kEarlyAllocations = 36 * kMiB;
constexpr uint64_t kEarlyAllocationsShare = 8;
// struct page is 64 bytes for each 4 KiB; of a large guest's only the first are set up before init.
constexpr uint64_t kPageDescriptorsShare = 64;
constexpr uint64_t kMaxPageDescriptors = 16 * kMiB;
// Per-CPU areas, node data, page tables.
constexpr uint64_t kTopAllocations = 4 * kMiB;

}  // namespace

std::vector<AddressRange> BootWorkingSet(const AddressRange& kernel, uint64_t initrd_bytes,
                                         const memory::Layout& layout) {
  if (kernel.size < kSmallestLinux) return {};
  const uint64_t ram = layout.ram_bytes;
  const uint64_t behind = std::min(kEarlyAllocations, ram / kEarlyAllocationsShare);
  const uint64_t top =
      initrd_bytes + std::min(kMaxPageDescriptors, ram / kPageDescriptorsShare) + kTopAllocations;
  const AddressRange& last = layout.ram.back().guest;
  const uint64_t top_size = std::min(top, last.size);
  return {{kernel.base, kernel.size + behind}, {last.end() - top_size, top_size}};
}

}  // namespace bothy::boot
