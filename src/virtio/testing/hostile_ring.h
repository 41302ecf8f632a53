// HostileRing: the driver's side of a virtqueue for fuzzers: descriptors, heads and indices that
// may be anything, but for buffers in memory that the test guards.
//
// Each call takes its operands from the fuzzer's input, in the order of the arguments that it
// names.
#pragma once

#include <cstdint>

#include "memory/guest_memory.h"
#include "support/check.h"
#include "support/testing/fuzz_input.h"

namespace bothy::virtio::testing {

class HostileRing {
 public:
  // Laid out as DriverQueue's, from `base` on. No descriptor reaches RAM from `guarded` on.
  HostileRing(memory::GuestMemory& ram, uint64_t base, uint16_t size, uint64_t guarded)
      : ram_(ram), base_(base), size_(size), guarded_(guarded) {}

  // Where one of the descriptors is.
  [[nodiscard]] uint64_t Slot(FuzzInput& input) const {
    return base_ + uint64_t{16} * (input.Take<uint8_t>() % size_);
  }
  // One that is likely to be good.
  void PutLikely(uint64_t slot, uint64_t address, uint32_t length, FuzzInput& input) {
    Put<uint64_t>(slot, address);
    Put<uint32_t>(slot + 8, length);
    Put<uint16_t>(slot + 12, input.Take<uint8_t>() % 8);
    Put<uint16_t>(slot + 14, input.Take<uint8_t>() % (size_ + 1));
  }
  // One that may be anything.
  void PutAny(FuzzInput& input) {
    const uint64_t slot = Slot(input);
    const auto address = input.Take<uint64_t>();
    const auto length = input.Take<uint32_t>();
    const uint64_t ram_bytes = ram_.layout().ram_bytes;
    const bool harmless =
        address >= ram_bytes || length > ram_bytes || address + length <= guarded_;
    Put<uint64_t>(slot, address);
    Put<uint32_t>(slot + 8, harmless ? length : static_cast<uint32_t>(ram_bytes));
    Put<uint16_t>(slot + 12, input.Take<uint16_t>());
    Put<uint16_t>(slot + 14, input.Take<uint16_t>());
  }
  // Offers a head.
  void Offer(FuzzInput& input) {
    const auto index = *ram_.ReadObject<uint16_t>(available() + 2);
    Put<uint16_t>(available() + 4 + 2 * uint64_t(index % size_), input.Take<uint8_t>());
    Put<uint16_t>(available() + 2, static_cast<uint16_t>(index + 1));
  }
  // Any available index.
  void PutIndex(FuzzInput& input) { Put<uint16_t>(available() + 2, input.Take<uint16_t>()); }

 private:
  [[nodiscard]] uint64_t available() const { return base_ + uint64_t{16} * size_; }
  template <typename T>
  void Put(uint64_t gpa, T value) {
    CHECK_OK(ram_.WriteObject(gpa, value));
  }

  memory::GuestMemory& ram_;
  const uint64_t base_;
  const uint16_t size_;
  const uint64_t guarded_;
};

}  // namespace bothy::virtio::testing
