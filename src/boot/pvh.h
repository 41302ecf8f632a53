// The start info structure of the PVH boot protocol (xen/include/public/arch-x86/hvm/start_info.h).
#pragma once

#include <cstdint>
#include <span>

#include "boot/memory_map.h"
#include "memory/guest_memory.h"

namespace bothy::boot {

struct PvhOptions {
  std::span<const MemoryMapEntry> memory_map;
  uint64_t command_line_gpa = 0;
  uint64_t initrd_gpa = 0;
  uint64_t initrd_bytes = 0;  // 0: none
  uint64_t rsdp_gpa = 0;
};

// Writes hvm_start_info, its module list and memory map at kPvhStartInfo.
absl::Status WritePvhStartInfo(const PvhOptions& options, memory::GuestMemory& memory);

}  // namespace bothy::boot
