// EntryState: the registers the boot CPU starts the kernel with.
//
// A plain description that machine/ turns into the hypervisor's registers; the tables it refers to
// (GDT, page tables) have been written to guest RAM. General registers not named here are zero,
// interrupts are off (RFLAGS = 2), no IDT is loaded (limit 0).
#pragma once

#include <cstdint>

#include "memory/guest_memory.h"
#include "support/status.h"

namespace bothy::boot {

enum class EntryMode : uint8_t {
  kLong64,       // Linux 64-bit boot protocol: paging on, flat 64-bit code segment
  kProtected32,  // PVH: paging off, flat 32-bit segments
};

// A segment register with its hidden part; the fields are those of the descriptor (Intel SDM 3A,
// 3.4.5).
struct SegmentState {
  uint16_t selector = 0;
  uint64_t base = 0;
  uint32_t limit = 0;        // bytes, less one; already scaled
  uint8_t type = 0;          // 4 bits
  bool code_or_data = true;  // the S bit; false: system segment
  bool long_mode = false;    // the L bit
  bool default_32 = false;   // the D/B bit
  bool granularity_4k = false;
};

struct EntryState {
  EntryMode mode = EntryMode::kLong64;
  uint64_t rip = 0;
  uint64_t rsp = 0;
  uint64_t rsi = 0;  // 64-bit entry: boot_params
  uint64_t rbx = 0;  // PVH: hvm_start_info
  uint64_t rflags = 0x2;
  uint64_t cr0 = 0;
  uint64_t cr3 = 0;
  uint64_t cr4 = 0;
  uint64_t efer = 0;
  SegmentState cs;
  SegmentState data;  // ds, es, fs, gs, ss
  SegmentState tr;
  uint64_t gdt_base = 0;
  uint16_t gdt_limit = 0;
};

// Writes GDT and, for the 64-bit entry, identity page tables to guest RAM and returns the state
// that uses them, with rip, rsi and rbx still zero.
absl::StatusOr<EntryState> PrepareEntry(EntryMode mode, memory::GuestMemory& memory);

}  // namespace bothy::boot
