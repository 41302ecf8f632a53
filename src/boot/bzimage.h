// The setup header of a bzImage, parsed and checked.
//
// Linux, Documentation/arch/x86/boot.rst. The header is a hostile file's; what is returned has been
// held against the file's size.
#pragma once

#include <asm/bootparam.h>

#include <cstdint>
#include <span>

#include "boot/elf_image.h"
#include "memory/layout.h"
#include "support/status.h"

namespace bothy::boot {

// Every setup header lies within this many bytes from the file's beginning.
inline constexpr size_t kMaxSetupHeaderEnd = 0x290;
inline constexpr uint32_t kSetupHeaderMagic = 0x5372'6448;  // "HdrS"
inline constexpr size_t kSetupHeaderMagicOffset = 0x202;

struct BzImage {
  setup_header header{};        // zero behind what this kernel's version has
  FileRange protected_mode;     // the self-unpacking part
  FileRange payload;            // the packed vmlinux within it
  uint64_t preferred_base = 0;  // where the self-unpacking part likes to run, guest-physical
  uint64_t init_bytes = 0;      // memory it needs from there, its own included
};

// Whether `head`, the beginning of a file, has the magic number of a Linux boot image.
[[nodiscard]] bool LooksLikeBzImage(std::span<const uint8_t> head);

// Parses the header of a file of `file_bytes` bytes that begins with `head`, which is as long as
// kMaxSetupHeaderEnd or the file. InvalidArgument for what isn't an x86-64 bzImage of boot protocol
// 2.12 or later with a 64-bit entry, and for one that was truncated.
absl::StatusOr<BzImage> ParseBzImage(std::span<const uint8_t> head, uint64_t file_bytes);

}  // namespace bothy::boot
