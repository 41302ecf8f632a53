// DriverQueue: the driver's side of a split virtqueue, for tests, micro benchmarks and fuzzers.
//
// Lays out rings in guest RAM, makes chains, sees what the device used. Raw* write whatever a
// hostile driver would.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "memory/guest_memory.h"
#include "support/check.h"
#include "virtio/queue/virtqueue.h"

namespace bothy::virtio::testing {

// Guest RAM of so many bytes at 0, as tests need it.
inline std::unique_ptr<memory::GuestMemory> TestRam(uint64_t bytes) {
  auto layout = memory::ComputeLayout({.ram_bytes = bytes, .physical_address_bits = 40});
  CHECK(layout.ok());
  auto memory = memory::GuestMemory::Create({.layout = *layout});
  CHECK(memory.ok());
  return *std::move(memory);
}

class DriverQueue {
 public:
  struct Buffer {
    uint64_t gpa = 0;
    uint32_t length = 0;
    bool writable = false;
  };
  struct RawDescriptor {
    uint64_t address = 0;
    uint32_t length = 0;
    uint16_t flags = 0;
    uint16_t next = 0;
  };
  struct Used {
    uint32_t head = 0;
    uint32_t written = 0;
  };
  static constexpr uint16_t kNext = 1;
  static constexpr uint16_t kWrite = 2;
  static constexpr uint16_t kIndirect = 4;

  // Takes the RAM from `base` on, RingBytes(size) of it.
  DriverQueue(memory::GuestMemory& memory, uint64_t base, uint16_t size, bool event_index = false,
              bool indirect = true)
      : memory_(&memory),
        setup_{.size = size,
               .descriptor_gpa = base,
               .driver_gpa = base + 16 * uint64_t{size},
               .device_gpa =
                   base + 16 * uint64_t{size} + ((6 + 2 * uint64_t{size} + 3) & ~uint64_t{3}),
               .indirect = indirect,
               .event_index = event_index} {
    for (uint16_t i = 0; i < size; ++i) free_.push_back(static_cast<uint16_t>(size - 1 - i));
  }
  static uint64_t RingBytes(uint16_t size) { return 26 * uint64_t{size} + 32; }
  [[nodiscard]] const QueueSetup& setup() const { return setup_; }

  // Offers a chain; its head, or nothing while there are too few free descriptors.
  std::optional<uint16_t> Add(std::span<const Buffer> buffers) {
    if (free_.size() < buffers.size()) return std::nullopt;
    std::vector<uint16_t> taken;
    for (size_t i = 0; i < buffers.size(); ++i) {
      taken.push_back(free_.back());
      free_.pop_back();
    }
    for (size_t i = 0; i < buffers.size(); ++i) {
      const bool last = i + 1 == buffers.size();
      RawSet(taken[i], {.address = buffers[i].gpa,
                        .length = buffers[i].length,
                        .flags = static_cast<uint16_t>((buffers[i].writable ? kWrite : 0) |
                                                       (last ? 0 : kNext)),
                        .next = last ? uint16_t{0} : taken[i + 1]});
    }
    chains_[taken[0]] = taken;
    RawOffer(taken[0]);
    return taken[0];
  }
  // The same by an indirect table, which is put at `table_gpa`.
  std::optional<uint16_t> AddIndirect(std::span<const Buffer> buffers, uint64_t table_gpa) {
    if (free_.empty()) return std::nullopt;
    for (size_t i = 0; i < buffers.size(); ++i) {
      const bool last = i + 1 == buffers.size();
      RawSetAt(
          table_gpa + 16 * i,
          {.address = buffers[i].gpa,
           .length = buffers[i].length,
           .flags = static_cast<uint16_t>((buffers[i].writable ? kWrite : 0) | (last ? 0 : kNext)),
           .next = static_cast<uint16_t>(i + 1)});
    }
    const uint16_t head = free_.back();
    free_.pop_back();
    RawSet(head, {.address = table_gpa,
                  .length = static_cast<uint32_t>(16 * buffers.size()),
                  .flags = kIndirect});
    chains_[head] = {head};
    RawOffer(head);
    return head;
  }
  // What the device gave back since.
  std::optional<Used> TakeUsed() {
    if (Index(setup_.device_gpa).load(std::memory_order_acquire) == seen_used_) return std::nullopt;
    const uint64_t entry = setup_.device_gpa + 4 + 8 * uint64_t(seen_used_ % setup_.size);
    ++seen_used_;
    const Used used{.head = Get<uint32_t>(entry), .written = Get<uint32_t>(entry + 4)};
    if (const auto chain = chains_.find(used.head); chain != chains_.end()) {
      free_.insert(free_.end(), chain->second.begin(), chain->second.end());
      chains_.erase(chain);
    }
    return used;
  }

  // Wishes of either side.
  void SetNoInterrupt(bool on) { Put<uint16_t>(setup_.driver_gpa, on ? 1 : 0); }
  void SetUsedEvent(uint16_t index) {
    Put<uint16_t>(setup_.driver_gpa + 4 + 2 * uint64_t{setup_.size}, index);
  }
  [[nodiscard]] bool DeviceWantsNoDoorbell() const {
    return (Get<uint16_t>(setup_.device_gpa) & 1) != 0;
  }
  [[nodiscard]] uint16_t AvailableEvent() const {
    return Get<uint16_t>(setup_.device_gpa + 4 + 8 * uint64_t{setup_.size});
  }

  void RawSet(uint16_t index, const RawDescriptor& descriptor) {
    RawSetAt(setup_.descriptor_gpa + 16 * uint64_t{index}, descriptor);
  }
  void RawSetAt(uint64_t gpa, const RawDescriptor& descriptor) {
    Put(gpa, descriptor.address);
    Put(gpa + 8, descriptor.length);
    Put(gpa + 12, descriptor.flags);
    Put(gpa + 14, descriptor.next);
  }
  void RawOffer(uint16_t head) {
    Put<uint16_t>(setup_.driver_gpa + 4 + 2 * uint64_t(offered_ % setup_.size), head);
    RawSetAvailableIndex(++offered_);
  }
  void RawSetAvailableIndex(uint16_t index) {
    Index(setup_.driver_gpa).store(index, std::memory_order_release);
  }

 private:
  // Of the ring that begins there. It orders what the two sides do to each other's memory, as the
  // barriers of a driver do (virtio 1.2, 2.7.13): ringing a doorbell needn't.
  [[nodiscard]] std::atomic_ref<uint16_t> Index(uint64_t ring) const {
    const absl::StatusOr<std::span<uint8_t>> host = memory_->HostRange(ring + 2, sizeof(uint16_t));
    CHECK_OK(host.status());
    return std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(host->data()));
  }
  template <typename T>
  [[nodiscard]] T Get(uint64_t gpa) const {
    return memory_->ReadObject<T>(gpa).value();
  }
  template <typename T>
  void Put(uint64_t gpa, T value) {
    CHECK_OK(memory_->WriteObject(gpa, value));
  }

  memory::GuestMemory* memory_;
  QueueSetup setup_;
  std::vector<uint16_t> free_;
  std::map<uint32_t, std::vector<uint16_t>> chains_;
  uint16_t offered_ = 0;
  uint16_t seen_used_ = 0;
};

}  // namespace bothy::virtio::testing
