#include "boot/cpu_entry.h"

#include <array>
#include <span>
#include <vector>

#include "boot/low_memory_map.h"

namespace bothy::boot {
namespace {

constexpr uint64_t kCr0ProtectionEnable = 1U << 0;
constexpr uint64_t kCr0ExtensionType = 1U << 4;
constexpr uint64_t kCr0NumericError = 1U << 5;
constexpr uint64_t kCr0Paging = 1U << 31;
constexpr uint64_t kCr4PhysicalAddressExtension = 1U << 5;
constexpr uint64_t kEferLongModeEnable = 1U << 8;
constexpr uint64_t kEferLongModeActive = 1U << 10;

constexpr uint8_t kTypeCode = 0xB;     // execute, read, accessed
constexpr uint8_t kTypeData = 0x3;     // read, write, accessed
constexpr uint8_t kTypeBusyTss = 0xB;  // what TR must hold for VM entry

// Linux wants __BOOT_CS and __BOOT_DS at these selectors (boot.rst, 64-bit boot protocol); PVH
// doesn't care.
constexpr uint16_t kCodeSelector = 0x10;
constexpr uint16_t kDataSelector = 0x18;
constexpr uint16_t kTssSelector = 0x20;

constexpr uint64_t kPagePresent = 1U << 0;
constexpr uint64_t kPageWritable = 1U << 1;
constexpr uint64_t kPageLarge = 1U << 7;
constexpr uint64_t kEntriesPerTable = 512;
constexpr uint64_t kLargePageBytes = 2 * memory::kMiB;
constexpr uint64_t kDirectories = 4;  // 1 GiB each

// Intel SDM 3A, figure 3-8; base is 0 for all of ours.
uint64_t Descriptor(const hypervisor::Segment& segment) {
  const uint64_t limit = segment.granularity_4k ? segment.limit >> 12 : segment.limit;
  constexpr uint64_t kPresent = uint64_t{1} << 47;
  return (limit & 0xFFFF) | uint64_t{segment.type} << 40 | uint64_t{segment.code_or_data} << 44 |
         kPresent | (limit >> 16 & 0xF) << 48 | uint64_t{segment.long_mode} << 53 |
         uint64_t{segment.default_32} << 54 | uint64_t{segment.granularity_4k} << 55;
}

absl::Status WriteWords(memory::GuestMemory& memory, uint64_t gpa,
                        std::span<const uint64_t> words) {
  return memory.Write(
      gpa, {reinterpret_cast<const uint8_t*>(words.data()), words.size() * sizeof(uint64_t)});
}

// PML4, PDPT and four page directories, one page each, that map 0..4 GiB to itself with 2 MiB
// pages, which every x86-64 CPU has.
absl::Status WriteIdentityPageTables(memory::GuestMemory& memory) {
  constexpr uint64_t kTableEntry = kPagePresent | kPageWritable;
  std::vector<uint64_t> tables((2 + kDirectories) * kEntriesPerTable);
  tables[0] = (kPageTables + memory::kPageSize) | kTableEntry;
  for (uint64_t i = 0; i < kDirectories; ++i) {
    tables[kEntriesPerTable + i] = (kPageTables + (2 + i) * memory::kPageSize) | kTableEntry;
  }
  for (uint64_t i = 0; i < kDirectories * kEntriesPerTable; ++i) {
    tables[2 * kEntriesPerTable + i] = i * kLargePageBytes | kTableEntry | kPageLarge;
  }
  return WriteWords(memory, kPageTables, tables);
}

}  // namespace

absl::StatusOr<hypervisor::EntryRegisters> PrepareEntry(EntryMode mode,
                                                        memory::GuestMemory& memory) {
  const bool long64 = mode == EntryMode::kLong64;
  hypervisor::EntryRegisters registers;
  registers.rsp = kBootStackTop;
  registers.cs = {.selector = kCodeSelector,
                  .limit = UINT32_MAX,
                  .type = kTypeCode,
                  .long_mode = long64,
                  .default_32 = !long64,
                  .granularity_4k = true};
  registers.data = {.selector = kDataSelector,
                    .limit = UINT32_MAX,
                    .type = kTypeData,
                    .default_32 = true,
                    .granularity_4k = true};
  registers.tr = {
      .selector = kTssSelector, .limit = 0x67, .type = kTypeBusyTss, .code_or_data = false};
  registers.cr0 = kCr0ProtectionEnable | kCr0ExtensionType | kCr0NumericError;
  if (long64) {
    registers.cr0 |= kCr0Paging;
    registers.cr3 = kPageTables;
    registers.cr4 = kCr4PhysicalAddressExtension;
    registers.efer = kEferLongModeEnable | kEferLongModeActive;
    RETURN_IF_ERROR(WriteIdentityPageTables(memory));
  }

  // The TSS descriptor takes two slots in 64-bit mode; the upper one is its base's upper half.
  const std::array<uint64_t, 6> gdt = {
      0, 0, Descriptor(registers.cs), Descriptor(registers.data), Descriptor(registers.tr), 0};
  RETURN_IF_ERROR(WriteWords(memory, kGdtBase, gdt));
  registers.gdt_base = kGdtBase;
  registers.gdt_limit = sizeof gdt - 1;
  return registers;
}

}  // namespace bothy::boot
