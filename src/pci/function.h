// Function: one PCI function as its configuration space shows it.
//
// PCI Express Base 5.0, chapter 7. Accesses arrive as a whole double word with byte enables, as on
// the bus: whatever size and alignment the guest used has been taken apart by RootComplex.
#pragma once

#include <cstdint>

namespace bothy::pci {

// Bytes of a function's configuration space; mechanism #1 reaches only the first 256.
inline constexpr uint16_t kConfigSpaceBytes = 4096;
inline constexpr uint16_t kLegacyConfigSpaceBytes = 256;

// What absent functions and registers nobody answers for read as.
inline constexpr uint32_t kAllOnes = 0xFFFF'FFFF;

inline constexpr uint8_t kDevicesPerBus = 32;
inline constexpr uint8_t kFunctionsPerDevice = 8;

// Where a function is on its bus.
struct DeviceFunction {
  uint8_t device = 0;    // 0..31
  uint8_t function = 0;  // 0..7
  bool operator==(const DeviceFunction&) const = default;
};

// Called on vCPU threads, concurrently: a function locks its own state. Must not block, nor attach
// to or detach from the bus it is on itself (a bridge may do so on the bus behind it).
class Function {
 public:
  virtual ~Function() = default;
  // `offset` is a multiple of 4 below kConfigSpaceBytes.
  [[nodiscard]] virtual uint32_t ReadConfig(uint16_t offset) = 0;
  // The guest writes those bytes of the double word where `enabled` has 0xFF (elsewhere it has 0);
  // the others of `value` are zero.
  virtual void WriteConfig(uint16_t offset, uint32_t value, uint32_t enabled) = 0;
  // Back to the state after power-on. Only while no vCPU runs.
  virtual void Reset() = 0;
  // The bus it is on is reset, or its slot has lost power, while the machine runs: as a reset, but
  // without what firmware has set up, and all of it before this returns that the guest can see. On
  // a vCPU thread or on that which unplugs it. Nothing happens to functions on bus 0.
  virtual void BusReset() {}
};

}  // namespace bothy::pci
