// MemorySlots: which guest-physical addresses are memory, as KVM numbers them.
//
// KVM counts a slot's pages in 31 bits, so that a range of 4 TiB and more takes several.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <span>

#include "hypervisor/vm.h"
#include "support/status.h"

namespace bothy::hypervisor::kvm {

// Thread-safe; the slots that it gives out don't outlive it.
class MemorySlots {
 public:
  // `max_slots`: KVM_CAP_NR_MEMSLOTS.
  MemorySlots(int vm_fd, uint32_t max_slots) : vm_fd_(vm_fd), max_slots_(max_slots) {}

  // For as long as the VM lives.
  absl::Status MapForGood(uint64_t guest_physical, std::span<uint8_t> host);
  absl::StatusOr<std::unique_ptr<MemorySlot>> Map(const MemorySlotOptions& options);

 private:
  class Slot;

  absl::StatusOr<uint32_t> Allocate();
  void Free(uint32_t id);
  // A size of 0 takes the slot away.
  absl::Status Set(uint32_t id, uint64_t guest_physical, std::span<uint8_t> host,
                   uint32_t flags) const;

  const int vm_fd_;
  const uint32_t max_slots_;
  std::mutex mutex_;
  std::set<uint32_t> free_;  // guarded by mutex_; those below next_
  uint32_t next_ = 0;        // guarded by mutex_
};

}  // namespace bothy::hypervisor::kvm
