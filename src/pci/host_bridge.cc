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

// The register knows three sizes; an ECAM of another one isn't announced here (ACPI's MCFG has it).
uint32_t PciExBar(const memory::AddressRange& ecam) {
  switch (ecam.size / memory::kMiB) {
    case 256:
      return static_cast<uint32_t>(ecam.base) | kPciExBarEnable;
    case 128:
      return static_cast<uint32_t>(ecam.base) | kPciExBarEnable | kPciExBar128MiB;
    case 64:
      return static_cast<uint32_t>(ecam.base) | kPciExBarEnable | kPciExBar64MiB;
    default:
      return 0;
  }
}

}  // namespace

HostBridge::HostBridge(const memory::AddressRange& ecam) {
  registers_.Define(kIdRegister, {.reset = kIds});
  // It always answers to memory accesses and always may be a master; only SERR is the guest's.
  registers_.Define(kCommandRegister,
                    {.reset = kCommandMemory | kCommandBusMaster, .writable = kCommandSerr});
  registers_.Define(kClassRegister, {.reset = kClass});
  registers_.Define(kPciExBarLow, {.reset = PciExBar(ecam)});
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
