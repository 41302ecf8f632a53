// Copies the segments of an ELF image from a decoder to guest RAM in one pass.
#pragma once

#include "boot/elf_image.h"
#include "boot/payload_decoder.h"
#include "memory/guest_memory.h"
#include "support/status.h"

namespace bothy::boot {

// Whether [range) of a kernel can be loaded into RAM of this layout: InvalidArgument where RAM can
// never be, ResourceExhausted where there just isn't enough.
absl::Status CheckRangeIsRam(const memory::AddressRange& range, const memory::Layout& layout);

// Reads an ELF file's headers from the beginning of `decoder`'s output, then its segments to their
// places. The output before, between and behind segments is passed over, at most
// kMaxPassedOverBytes of it each time.
absl::StatusOr<ElfImage> LoadElfStream(PayloadDecoder& decoder, memory::GuestMemory& memory);

// Generous for what a linker puts between segments and what the kernel's build appends
// (relocations); a limit for a stream that claims to unpack to petabytes.
inline constexpr uint64_t kMaxPassedOverBytes = uint64_t{64} << 20;

}  // namespace bothy::boot
