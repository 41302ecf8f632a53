// Where direct boot puts what it hands to the kernel: fixed guest-physical addresses below 1 MiB.
//
//   0x00500  GDT                                   kernels load their own before they reuse this
//   0x06000  PVH start info, memory map, modules   (PVH entry only)
//   0x07000  boot_params, the "zero page"          (64-bit entry only)
//   0x08000  stack of the boot CPU, growing down from 0x9000
//   0x09000  page tables that map the first 4 GiB one to one: PML4, PDPT, four directories
//   0x20000  command line, up to 64 KiB with its NUL
//   0x9FC00  extended BIOS data area: reserved, nothing there
//   0xA0000  VGA hole: no memory as far as the guest is told
//   0xE0000  ACPI tables (acpi::kTableArea) up to 1 MiB: reserved
//
// Everything below 0x9FC00 is ordinary RAM in the memory map: kernels copy what they want to keep.
#pragma once

#include <cstdint>

namespace bothy::boot {

inline constexpr uint64_t kGdtBase = 0x500;
inline constexpr uint64_t kPvhStartInfo = 0x6000;
inline constexpr uint64_t kZeroPage = 0x7000;
inline constexpr uint64_t kBootStackTop = 0x9000;
inline constexpr uint64_t kPageTables = 0x9000;
inline constexpr uint64_t kCommandLine = 0x2'0000;
inline constexpr uint64_t kCommandLineCapacity = 0x1'0000;  // bytes, the final NUL included
inline constexpr uint64_t kEbdaBase = 0x9'FC00;
inline constexpr uint64_t kVgaHoleBase = 0xA'0000;
// Kernels and initrds lie at or above this.
inline constexpr uint64_t kHighLoadBase = 0x10'0000;

}  // namespace bothy::boot
