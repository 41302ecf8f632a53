// Where in guest RAM an initrd goes. Arithmetic only.
#pragma once

#include <cstdint>
#include <optional>

#include "memory/layout.h"

namespace bothy::boot {

struct InitrdPlacementOptions {
  uint64_t initrd_bytes = 0;
  memory::AddressRange kernel;  // not to be touched
  // The initrd ends at or below the first of these where it can, else at or below the second.
  uint64_t preferred_limit = 0;
  uint64_t limit = 0;
};

// The guest-physical address for the initrd, page-aligned, above 1 MiB and within one range of RAM:
// as high as possible below 4 GiB, where every kernel finds it, else in high RAM. Nothing where it
// doesn't fit.
[[nodiscard]] std::optional<uint64_t> PlaceInitrd(const InitrdPlacementOptions& options,
                                                  const memory::Layout& layout);

// Bytes of RAM that kernel and initrd can share.
[[nodiscard]] uint64_t UsableRamBytes(const memory::Layout& layout);

}  // namespace bothy::boot
