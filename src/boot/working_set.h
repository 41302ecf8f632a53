// The RAM that a Linux kernel touches while it boots, known before it does.
//
// Every boot writes the same places, densely: the image, the pages right behind it (the first that
// its allocator hands out), and the top of RAM (initrd, the array of page descriptors). Backing
// them with huge pages beforehand saves the guest some twenty thousand faults in the nested page
// table. Too much costs memory that isn't used, so the allowances are what a stock distribution
// kernel was seen to touch, and bounded by the guest's size.
#pragma once

#include <cstdint>
#include <vector>

#include "memory/layout.h"

namespace bothy::boot {

// Ranges in the order they are needed; empty for a kernel too small to be Linux. `kernel` is where
// the image lies with its BSS, guest-physical.
std::vector<memory::AddressRange> BootWorkingSet(const memory::AddressRange& kernel,
                                                 uint64_t initrd_bytes,
                                                 const memory::Layout& layout);

}  // namespace bothy::boot
