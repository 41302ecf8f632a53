// IoBus: which device answers a port or MMIO address.
//
// Two instances a machine: ports (0..0xFFFF) and MMIO. vCPU threads read it on every exit,
// registration is rare. Addresses, sizes and data come from the guest; the bus guarantees that a
// device sees only accesses that lie wholly within a range it registered, with data of 1, 2, 4 or 8
// bytes.
//
// Ranges may nest: an access goes to the smallest range that holds all of it. That is how the reset
// register, one byte at 0xCF9, lives inside PCI's CONFIG_ADDRESS, a doubleword at 0xCF8.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <span>
#include <vector>

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

// Thread-safe. A device may register and unregister ranges of other devices, on this bus too, while
// it handles an access (a guest that moves a BAR through ECAM does that); it must not unregister a
// range from within an access to that same range.
class IoBus {
 public:
  IoBus() = default;
  IoBus(const IoBus&) = delete;
  IoBus& operator=(const IoBus&) = delete;

  // AlreadyExists when the range is registered already or overlaps one that neither holds it nor is
  // held by it; InvalidArgument when it is empty or runs past the end of the address space.
  // `device` must outlive its registration.
  absl::Status Register(uint64_t base, uint64_t size, IoDevice& device);
  // Returns when no vCPU is inside the device for this range any more. NotFound if exactly this
  // range isn't registered. The caller holds no lock that the device takes in Read or Write.
  absl::Status Unregister(uint64_t base, uint64_t size);

  // The access a vCPU made. Addresses where no device answers read as all ones and swallow writes,
  // as on a PC. An access whose size isn't a power of two (half of one that crossed a page) is
  // split.
  void Read(uint64_t address, std::span<uint8_t> data) const;
  void Write(uint64_t address, std::span<const uint8_t> data) const;

 private:
  struct Range {
    uint64_t base;
    uint64_t last;  // address of the last byte
    IoDevice* device;
    // The smallest range around this one, or null. Guarded by mutex_.
    Range* parent = nullptr;
    // Accesses inside the device now.
    std::atomic<uint32_t> users{0};
  };
  // Holds the range that serves [address, address + size) in use for as long as it lives.
  class Lookup;

  void RelinkParents();

  mutable std::shared_mutex mutex_;
  // By base, then larger first, so that a range stands before those it holds. Guarded by mutex_.
  std::vector<std::unique_ptr<Range>> ranges_;
};

}  // namespace bothy::chipset
