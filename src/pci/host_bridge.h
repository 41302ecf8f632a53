// HostBridge: the function at 00:00.0 that stands for the root complex itself.
//
// It has the ids of Intel's Q35 memory controller hub, which operating systems and OVMF know, and
// of its registers those that tell where ECAM is (PCIEXBAR), read-only: our ECAM doesn't move.
#pragma once

#include <cstdint>
#include <mutex>

#include "memory/layout.h"
#include "pci/config_registers.h"
#include "pci/function.h"

namespace bothy::pci {

class HostBridge final : public Function {
 public:
  explicit HostBridge(const memory::AddressRange& ecam);

  uint32_t ReadConfig(uint16_t offset) override;
  void WriteConfig(uint16_t offset, uint32_t value, uint32_t enabled) override;
  void Reset() override;

 private:
  std::mutex mutex_;
  ConfigRegisters registers_;  // guarded by mutex_
};

}  // namespace bothy::pci
