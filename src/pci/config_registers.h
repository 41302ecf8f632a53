// ConfigRegisters: 4 KiB of configuration space with a rule for every bit.
//
// A bit is read-only, writable, or cleared by writing 1 to it; registers nobody defined read as 0
// and ignore writes. Functions build theirs from Define calls and hook the few registers that do
// something. Not thread-safe: the function that owns it locks.
//
//   registers.Define(kCommand, {.reset = 0, .writable = 0x0507});
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "pci/function.h"

namespace bothy::pci {

class ConfigRegisters {
 public:
  // One double word. A bit isn't both writable and write_one_to_clear.
  struct Register {
    uint32_t reset = 0;  // value after power-on
    uint32_t writable = 0;
    uint32_t write_one_to_clear = 0;
  };

  // `offset` is a multiple of 4 below kConfigSpaceBytes here and below.
  void Define(uint16_t offset, const Register& rule);
  // Replaces the bits of `mask` now and after a reset, and keeps their rules.
  void Redefine(uint16_t offset, uint32_t reset, uint32_t mask);

  // What the guest does.
  [[nodiscard]] uint32_t Read(uint16_t offset) const { return value_[Index(offset)]; }
  void Write(uint16_t offset, uint32_t value, uint32_t enabled);

  // What the device does: replaces the bits of `mask`, whatever their rule.
  void Set(uint16_t offset, uint32_t value, uint32_t mask = kAllOnes);
  void Reset() { value_ = reset_; }

 private:
  static size_t Index(uint16_t offset);

  using Words = std::array<uint32_t, kConfigSpaceBytes / sizeof(uint32_t)>;
  Words value_{};
  Words reset_{};
  Words writable_{};
  Words write_one_to_clear_{};
};

// The registers that every function has (PCI Express Base 5.0, 7.5.1), by double word.
inline constexpr uint16_t kIdRegister = 0x00;       // vendor, device
inline constexpr uint16_t kCommandRegister = 0x04;  // command, status
inline constexpr uint16_t kClassRegister = 0x08;    // revision, class code
inline constexpr uint16_t kHeaderRegister = 0x0C;   // cache line, latency timer, header type, BIST
inline constexpr uint16_t kBarRegisters = 0x10;
inline constexpr uint16_t kSubsystemRegister = 0x2C;    // of type 0 headers
inline constexpr uint16_t kCapabilitiesPointer = 0x34;  // offset of the first capability
inline constexpr uint16_t kInterruptRegister = 0x3C;    // line, pin; of bridges also their control
inline constexpr uint16_t kFirstCapability = 0x40;      // capabilities lie from here on

inline constexpr uint32_t kCommandMemory = 1U << 1;
inline constexpr uint32_t kCommandBusMaster = 1U << 2;
inline constexpr uint32_t kCommandParity = 1U << 6;
inline constexpr uint32_t kCommandSerr = 1U << 8;
inline constexpr uint32_t kCommandNoInterruptLine = 1U << 10;
inline constexpr uint32_t kStatusCapabilities = 1U << 20;
inline constexpr uint32_t kHeaderTypeBridge = 1U << 16;
inline constexpr uint32_t kHeaderMultifunction = 1U << 23;

// Capability ids (PCI Code and ID Assignment, 2).
inline constexpr uint8_t kCapabilityMsi = 0x05;
inline constexpr uint8_t kCapabilityVendorSpecific = 0x09;
inline constexpr uint8_t kCapabilityExpress = 0x10;
inline constexpr uint8_t kCapabilityMsix = 0x11;

}  // namespace bothy::pci
