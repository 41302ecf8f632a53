// boot_params, the "zero page" of the Linux x86 boot protocol.
#pragma once

#include <asm/bootparam.h>

#include <cstdint>
#include <span>

#include "boot/memory_map.h"

namespace bothy::boot {

struct ZeroPageOptions {
  // The bzImage's own header; zeroes for a vmlinux, which gets the least that kernels check.
  setup_header header{};
  std::span<const MemoryMapEntry> memory_map;  // at most 128
  uint64_t command_line_gpa = 0;
  uint64_t initrd_gpa = 0;
  uint64_t initrd_bytes = 0;  // 0: none
  uint64_t rsdp_gpa = 0;      // 0: the kernel looks for it itself
};

// No screen_info, EDD or EFI data: the guest has no firmware and no VGA to look for.
[[nodiscard]] boot_params BuildZeroPage(const ZeroPageOptions& options);

}  // namespace bothy::boot
