// How the boot CPU enters the kernel.
//
// The tables the returned registers refer to (GDT, page tables) are in guest RAM, where
// boot/low_memory_map.h says.
#pragma once

#include <cstdint>

#include "hypervisor/vm.h"
#include "memory/guest_memory.h"
#include "support/status.h"

namespace bothy::boot {

enum class EntryMode : uint8_t {
  kLong64,       // Linux 64-bit boot protocol: paging on, flat 64-bit code segment
  kProtected32,  // PVH: paging off, flat 32-bit segments
};

// Writes GDT and, for the 64-bit entry, identity page tables to guest RAM and returns the registers
// that use them, with rip, rsi and rbx still zero.
absl::StatusOr<hypervisor::EntryRegisters> PrepareEntry(EntryMode mode,
                                                        memory::GuestMemory& memory);

}  // namespace bothy::boot
