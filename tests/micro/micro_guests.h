// Guests of a few hundred instructions, for any /dev/kvm, even one that interprets: kernels in ELF
// form for bothy's direct boot, 64-bit entry.
//
// They need 2 MiB of RAM, print on COM1 without waiting for the transmitter (bothy's takes every
// byte) and never take an interrupt.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tests/micro/machine_code.h"

namespace bothy::micro {

inline constexpr uint32_t kLoadAddress = 0x10'0000;
// RAM that no kernel is loaded to.
inline constexpr uint32_t kCounterAddress = 0x18'0000;
inline constexpr uint32_t kMarkAddress = 0x18'1000;
inline constexpr uint16_t kCom1 = 0x3F8;
inline constexpr uint16_t kCom2 = 0x2F8;

// The code as a kernel: one segment at kLoadAddress, entered at its first byte.
[[nodiscard]] std::vector<uint8_t> Kernel(MachineCode& code);

// Ways to end, as code.
void PowerOff(MachineCode& code);     // PM1a_CNT
void ResetByPort(MachineCode& code);  // 0xCF9
void ResetByKeyboard(MachineCode& code);
void TripleFault(MachineCode& code);

// Prints, then powers off.
[[nodiscard]] std::vector<uint8_t> HelloKernel(std::string_view text);

// Prints a text over and over.
[[nodiscard]] std::vector<uint8_t> ChatterKernel(std::string_view text);

// Prints "ready\n" on COM1, then counts at kCounterAddress (64 bits) and does what single bytes on
// COM1 ask for; other bytes come back as they are.
//   't'  the PM timer, 4 bytes, lowest first
//   'c'  0xCF9 reset     'k'  keyboard reset     'f'  triple fault     'q'  power-off
[[nodiscard]] std::vector<uint8_t> PuppetKernel();

// At its first boot marks RAM (kMarkAddress) and CMOS, prints "first\n" and ends by `end`; at its
// second prints "second, clean\n", or "second, dirty\n" if the mark in RAM is still there, and
// powers off.
[[nodiscard]] std::vector<uint8_t> RestartKernel(void (*end)(MachineCode&));

}  // namespace bothy::micro
