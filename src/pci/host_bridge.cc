#include "pci/host_bridge.h"

namespace bothy::pci {
namespace {

// Intel 3 Series Express Chipset Family datasheet, chapter 5.
constexpr uint32_t kIds = 0x29C0'8086;
constexpr uint32_t kClass = 0x0600'0000;  // host bridge, revision 0
constexpr uint16_t kPciExBarLow = 0x60;
constexpr uint16_t kPciExBarHigh = 0x64;
constexpr uint32_t kPciExBarEnable = 1U << 0;
constexpr uint32_t kPciExBar128MiB = 1U << 1;
constexpr uint32_t kPciExBar64MiB = 2U << 1;

uint32_t LengthBits(uint64_t ecam_bytes) {
  if (ecam_bytes >= 256 * memory::kMiB) return 0;
  return ecam_bytes >= 128 * memory::kMiB ? kPciExBar128MiB : kPciExBar64MiB;
}

}  // namespace

HostBridge::HostBridge(const memory::AddressRange& ecam) {
  registers_.Define(kIdRegister, {.reset = kIds});
  // It always answers to memory accesses and always may be a master; only SERR is the guest's.
  registers_.Define(kCommandRegister,
                    {.reset = kCommandMemory | kCommandBusMaster, .writable = kCommandSerr});
  registers_.Define(kClassRegister, {.reset = kClass});
  registers_.Define(kPciExBarLow, {.reset = static_cast<uint32_t>(ecam.base) | kPciExBarEnable |
                                            LengthBits(ecam.size)});
  registers_.Define(kPciExBarHigh, {.reset = static_cast<uint32_t>(ecam.base >> 32)});
}

uint32_t HostBridge::ReadConfig(uint16_t offset) {
  const std::lock_guard lock(mutex_);
  return registers_.Read(offset);
}

void HostBridge::WriteConfig(uint16_t offset, uint32_t value, uint32_t enabled) {
  const std::lock_guard lock(mutex_);
  registers_.Write(offset, value, enabled);
}

void HostBridge::Reset() {
  const std::lock_guard lock(mutex_);
  registers_.Reset();
}

}  // namespace bothy::pci
