// GuardedRam: guest RAM whose end no device may touch, as it CHECKs when it ends itself.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "memory/guest_memory.h"
#include "support/check.h"
#include "virtio/testing/driver_queue.h"

namespace bothy::virtio::testing {

class GuardedRam {
 public:
  // From `guarded` on.
  GuardedRam(uint64_t bytes, uint64_t guarded)
      : ram_(TestRam(bytes)), guarded_(guarded), guard_(bytes - guarded, kGuard) {
    CHECK_OK(ram_->Write(guarded_, guard_));
  }
  ~GuardedRam() {
    CHECK_OK(ram_->Read(guarded_, guard_));
    CHECK(std::all_of(guard_.begin(), guard_.end(), [](uint8_t byte) { return byte == kGuard; }));
  }
  GuardedRam(const GuardedRam&) = delete;
  GuardedRam& operator=(const GuardedRam&) = delete;

  memory::GuestMemory& operator*() const { return *ram_; }
  memory::GuestMemory* operator->() const { return ram_.get(); }

 private:
  static constexpr uint8_t kGuard = 0x5C;
  const std::unique_ptr<memory::GuestMemory> ram_;
  const uint64_t guarded_;
  std::vector<uint8_t> guard_;
};

}  // namespace bothy::virtio::testing
