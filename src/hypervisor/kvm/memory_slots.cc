#include "hypervisor/kvm/memory_slots.h"

#include <linux/kvm.h>

#include <algorithm>
#include <vector>

#include "hypervisor/kvm/ioctl.h"
#include "memory/layout.h"
#include "support/check.h"

namespace bothy::hypervisor::kvm {
namespace {

constexpr uint64_t kMaxSlotBytes = uint64_t{4} << 40;
constexpr uint64_t kPagesPerWord = 64;

}  // namespace

class MemorySlots::Slot final : public MemorySlot {
 public:
  Slot(MemorySlots& owner, bool log_dirty) : owner_(owner), log_dirty_(log_dirty) {}
  ~Slot() override {
    for (const Part& part : parts_) {
      // Taking memory away is refused only for want of host memory; going on would let the guest
      // into what the host is about to use for something else.
      CHECK_OK(owner_.Set(part.id, part.guest_physical, {}, 0));
      owner_.Free(part.id);
    }
  }

  absl::Status Add(uint64_t guest_physical, std::span<uint8_t> host, uint32_t flags) {
    ASSIGN_OR_RETURN(const uint32_t id, owner_.Allocate());
    absl::Status status = owner_.Set(id, guest_physical, host, flags);
    if (!status.ok()) {
      owner_.Free(id);
      return status;
    }
    parts_.push_back({.id = id, .guest_physical = guest_physical, .size = host.size()});
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<uint64_t>> TakeDirtyPages() override {
    if (!log_dirty_) {
      return absl::FailedPreconditionError("this memory slot keeps no log of dirty pages");
    }
    // The kernel fills whole words, and parts but the last are whole words too.
    std::vector<uint64_t> bitmap;
    for (const Part& part : parts_) {
      const size_t first = bitmap.size();
      bitmap.resize(first + (part.size / memory::kPageSize + kPagesPerWord - 1) / kPagesPerWord);
      kvm_dirty_log log{};
      log.slot = part.id;
      log.dirty_bitmap = bitmap.data() + first;
      RETURN_IF_ERROR(Ioctl(owner_.vm_fd_, KVM_GET_DIRTY_LOG, &log, "reading dirty pages"));
    }
    return bitmap;
  }

 private:
  struct Part {
    uint32_t id = 0;
    uint64_t guest_physical = 0;
    uint64_t size = 0;
  };

  MemorySlots& owner_;
  const bool log_dirty_;
  std::vector<Part> parts_;
};

absl::Status MemorySlots::MapForGood(uint64_t guest_physical, std::span<uint8_t> host) {
  while (!host.empty()) {
    const std::span<uint8_t> part = host.first(std::min<uint64_t>(host.size(), kMaxSlotBytes));
    ASSIGN_OR_RETURN(const uint32_t id, Allocate());
    RETURN_IF_ERROR(Set(id, guest_physical, part, 0));
    guest_physical += part.size();
    host = host.subspan(part.size());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<MemorySlot>> MemorySlots::Map(const MemorySlotOptions& options) {
  const uint32_t flags = (options.read_only ? KVM_MEM_READONLY : 0) |
                         (options.log_dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0);
  auto slot = std::make_unique<Slot>(*this, options.log_dirty);
  uint64_t guest_physical = options.guest_physical;
  for (std::span<uint8_t> host = options.host; !host.empty();) {
    const std::span<uint8_t> part = host.first(std::min<uint64_t>(host.size(), kMaxSlotBytes));
    RETURN_IF_ERROR(slot->Add(guest_physical, part, flags));
    guest_physical += part.size();
    host = host.subspan(part.size());
  }
  return slot;
}

absl::StatusOr<uint32_t> MemorySlots::Allocate() {
  const std::lock_guard lock(mutex_);
  if (!free_.empty()) return free_.extract(free_.begin()).value();
  if (next_ >= max_slots_) return absl::ResourceExhaustedError("KVM has no more memory slots");
  return next_++;
}

void MemorySlots::Free(uint32_t id) {
  const std::lock_guard lock(mutex_);
  CHECK(free_.insert(id).second);
}

absl::Status MemorySlots::Set(uint32_t id, uint64_t guest_physical, std::span<uint8_t> host,
                              uint32_t flags) const {
  kvm_userspace_memory_region region{};
  region.slot = id;
  region.flags = flags;
  region.guest_phys_addr = guest_physical;
  region.memory_size = host.size();
  region.userspace_addr = reinterpret_cast<uint64_t>(host.data());
  return Ioctl(vm_fd_, KVM_SET_USER_MEMORY_REGION, &region, "mapping guest memory");
}

}  // namespace bothy::hypervisor::kvm
