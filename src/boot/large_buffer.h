// LargeBuffer: scratch memory for decoders, in huge pages where the host has them.
//
// Anonymous, zero, pages appear as they are touched: with 4 KiB pages the faults of a decoder's
// window can take longer than decoding.
#pragma once

#include <cstddef>

#include "support/mapping.h"

namespace bothy::boot {

// `bytes` of memory, rounded up to what huge pages need. ResourceExhausted when there is none.
absl::StatusOr<Mapping> AllocateLargeBuffer(size_t bytes);

// malloc and free for the codec libraries, which take theirs from here when it is large. Null when
// there is no memory; FreeForCodec takes null.
void* AllocateForCodec(size_t bytes);
void FreeForCodec(void* address);

}  // namespace bothy::boot
