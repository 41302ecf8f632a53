// IoBus: which device answers a port or MMIO address.
//
// Two instances a machine: ports (0..0xFFFF) and MMIO. vCPU threads read it on every exit,
// registration is rare. Addresses, sizes and data come from the guest; the bus guarantees that a
// device sees only accesses that lie wholly within a range it registered, with data of 1, 2, 4 or 8
// bytes.
#pragma once

#include <cstdint>
#include <map>
#include <shared_mutex>
#include <span>
#include <string_view>

#include "support/status.h"

namespace bothy::chipset {

// What answers accesses to one range. Called on vCPU threads, concurrently for different vCPUs: a
// device locks its own state. `offset` counts from the start of the range registered. Must not
// block.
class IoDevice {
 public:
  virtual ~IoDevice() = default;
  // Fills all of `data`.
  virtual void Read(uint64_t offset, std::span<uint8_t> data) = 0;
  virtual void Write(uint64_t offset, std::span<const uint8_t> data) = 0;
};

class IoBus {
 public:
  // AlreadyExists when the range overlaps one that is registered. `device` must outlive its
  // registration.
  absl::Status Register(uint64_t base, uint64_t size, IoDevice& device);
  // Returns when no vCPU is inside the device for this range any more. NotFound if nothing is
  // registered there.
  absl::Status Unregister(uint64_t base);

  // The access a vCPU made. Addresses where no device answers read as all ones and swallow writes,
  // as on a PC.
  void Read(uint64_t address, std::span<uint8_t> data) const;
  void Write(uint64_t address, std::span<const uint8_t> data) const;

 private:
  struct Range {
    uint64_t size;
    IoDevice* device;
  };
  [[nodiscard]] const std::pair<const uint64_t, Range>* Find(uint64_t address, uint64_t size) const;

  mutable std::shared_mutex mutex_;
  std::map<uint64_t, Range> ranges_;  // by base; guarded by mutex_
};

}  // namespace bothy::chipset
