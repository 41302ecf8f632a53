#include "virtio/queue/virtqueue.h"

#include <array>
#include <atomic>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "support/endian.h"

namespace bothy::virtio {
namespace {

// Layout of the rings (2.7.5, 2.7.6, 2.7.8), offsets in bytes.
constexpr size_t kDescriptorBytes = 16;
constexpr size_t kRingFlags = 0;
constexpr size_t kRingIndex = 2;
constexpr size_t kRingEntries = 4;
constexpr size_t kUsedEntryBytes = 8;

constexpr uint16_t kDescriptorNext = 1;
constexpr uint16_t kDescriptorWrite = 2;
constexpr uint16_t kDescriptorIndirect = 4;
constexpr uint16_t kAvailableNoInterrupt = 1;
constexpr uint16_t kUsedNoNotify = 1;

// Fields that both sides touch are accessed as atomics of their own width; they are aligned, since
// the rings' bases are.
template <typename T>
T Load(const uint8_t* at, std::memory_order order = std::memory_order_relaxed) {
  return std::atomic_ref<T>(*reinterpret_cast<T*>(const_cast<uint8_t*>(at))).load(order);
}
template <typename T>
void Store(uint8_t* at, T value, std::memory_order order = std::memory_order_relaxed) {
  std::atomic_ref<T>(*reinterpret_cast<T*>(at)).store(value, order);
}

absl::StatusOr<std::span<uint8_t>> Ring(const memory::GuestMemory& memory, const char* name,
                                        const QueueSetup& setup, uint64_t gpa, uint64_t alignment,
                                        uint64_t bytes) {
  if (gpa % alignment != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " at 0x", absl::Hex(gpa), " isn't aligned to ", alignment, " bytes"));
  }
  absl::StatusOr<std::span<uint8_t>> host =
      memory.HostRange(gpa, bytes, memory::Access::kWrite, setup.backing);
  if (!host.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " at 0x", absl::Hex(gpa), ", ", bytes, " bytes, isn't RAM"));
  }
  return host;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Virtqueue>> Virtqueue::Create(const memory::GuestMemory& memory,
                                                             const QueueSetup& setup,
                                                             std::atomic<uint64_t>* used_chains) {
  if (!std::has_single_bit(setup.size) || setup.size > kMaxQueueSize) {
    return absl::InvalidArgumentError(absl::StrCat("a queue of ", setup.size, " descriptors"));
  }
  const uint64_t size = setup.size;
  const uint64_t event = setup.event_index ? sizeof(uint16_t) : 0;
  ASSIGN_OR_RETURN(const std::span<uint8_t> descriptors,
                   Ring(memory, "the descriptor table", setup, setup.descriptor_gpa, 16,
                        kDescriptorBytes * size));
  ASSIGN_OR_RETURN(const std::span<uint8_t> available,
                   Ring(memory, "the available ring", setup, setup.driver_gpa, 2,
                        kRingEntries + sizeof(uint16_t) * size + event));
  ASSIGN_OR_RETURN(const std::span<uint8_t> used,
                   Ring(memory, "the used ring", setup, setup.device_gpa, 4,
                        kRingEntries + kUsedEntryBytes * size + event));
  return std::unique_ptr<Virtqueue>(
      new Virtqueue(memory, setup, descriptors, available, used, used_chains));
}

Virtqueue::Descriptor Virtqueue::ReadDescriptor(const uint8_t* at) {
  std::array<uint8_t, kDescriptorBytes> copy;
  std::memcpy(copy.data(), at, copy.size());
  // What follows sees this copy alone: the compiler may not go back for it.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  return {.address = LoadLe<uint64_t>(&copy[0]),
          .length = LoadLe<uint32_t>(&copy[8]),
          .flags = LoadLe<uint16_t>(&copy[12]),
          .next = LoadLe<uint16_t>(&copy[14])};
}

absl::StatusOr<bool> Virtqueue::Pop(Chain& chain) {
  // Acquire: the ring entry and the descriptors were written before the index.
  const auto index = Load<uint16_t>(available_ + kRingIndex, std::memory_order_acquire);
  const auto waiting = static_cast<uint16_t>(index - next_available_);
  if (waiting == 0) return false;
  if (waiting > setup_.size) {
    return absl::InvalidArgumentError(absl::StrCat("the available index went from ",
                                                   next_available_, " to ", index,
                                                   ", further than the ring is long"));
  }
  const size_t slot = next_available_ % setup_.size;
  const auto head = Load<uint16_t>(available_ + kRingEntries + sizeof(uint16_t) * slot);
  ++next_available_;
  RETURN_IF_ERROR(Walk(head, chain));
  // A driver that has more chains in flight than descriptors reuses some, which harms only itself,
  // but what a device keeps per chain must stay bounded.
  if (in_flight_ == setup_.size) {
    return absl::InvalidArgumentError("more chains are in flight than there are descriptors");
  }
  ++in_flight_;
  return true;
}

absl::Status Virtqueue::Walk(uint16_t head, Chain& chain) {
  chain.head = head;
  chain.readable.clear();
  chain.writable.clear();
  chain.readable_bytes = 0;
  chain.writable_bytes = 0;

  const uint8_t* table = descriptors_;
  uint32_t table_size = setup_.size;
  bool in_indirect = false;
  uint32_t index = head;
  // No chain is longer than the queue (2.7.5.3.1), an indirect one neither: that also ends loops.
  for (uint32_t position = 0; position < setup_.size;) {
    if (index >= table_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("descriptor ", index, " of a table of ", table_size));
    }
    const Descriptor descriptor = ReadDescriptor(table + kDescriptorBytes * index);
    if ((descriptor.flags & kDescriptorIndirect) != 0) {
      if (!setup_.indirect || in_indirect) {
        return absl::InvalidArgumentError(in_indirect
                                              ? "an indirect table within an indirect table"
                                              : "an indirect descriptor that wasn't negotiated");
      }
      if ((descriptor.flags & kDescriptorNext) != 0) {
        return absl::InvalidArgumentError("an indirect descriptor with a next one");
      }
      const uint32_t count = descriptor.length / kDescriptorBytes;
      if (descriptor.length % kDescriptorBytes != 0 || count == 0 || count > setup_.size) {
        return absl::InvalidArgumentError(absl::StrCat("an indirect table of ", descriptor.length,
                                                       " bytes at 0x",
                                                       absl::Hex(descriptor.address)));
      }
      const auto host = memory_.HostRange(descriptor.address, descriptor.length,
                                          memory::Access::kRead, setup_.backing);
      if (!host.ok()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "an indirect table at 0x", absl::Hex(descriptor.address), ", which isn't RAM"));
      }
      table = host->data();
      table_size = count;
      in_indirect = true;
      index = 0;
      continue;
    }
    RETURN_IF_ERROR(AddBuffer(descriptor, position, chain));
    if ((descriptor.flags & kDescriptorNext) == 0) return absl::OkStatus();
    index = descriptor.next;
    ++position;
  }
  return absl::InvalidArgumentError(absl::StrCat("the chain at ", head, " has a loop or more than ",
                                                 setup_.size, " descriptors"));
}

absl::Status Virtqueue::AddBuffer(const Descriptor& descriptor, uint32_t position,
                                  Chain& chain) const {
  const bool writable = (descriptor.flags & kDescriptorWrite) != 0;
  if (!writable && !chain.writable.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("descriptor ", position, " is to be read, one before it to be written"));
  }
  if (descriptor.length == 0) return absl::OkStatus();
  const auto host =
      memory_.HostRange(descriptor.address, descriptor.length,
                        writable ? memory::Access::kWrite : memory::Access::kRead, setup_.backing);
  if (!host.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("a buffer of ", descriptor.length,
                                                   " bytes at 0x", absl::Hex(descriptor.address),
                                                   ", which isn't RAM"));
  }
  uint64_t& total = writable ? chain.writable_bytes : chain.readable_bytes;
  total += descriptor.length;
  if (total > UINT32_MAX) return absl::InvalidArgumentError("a chain of more than 4 GiB");
  (writable ? chain.writable : chain.readable)
      .push_back({.iov_base = host->data(), .iov_len = host->size()});
  return absl::OkStatus();
}

void Virtqueue::GiveBack(uint16_t chains) {
  CHECK(chains <= in_flight_);
  in_flight_ -= chains;
  next_available_ = static_cast<uint16_t>(next_available_ - chains);
}

void Virtqueue::ContinueAtUsed() {
  CHECK(in_flight_ == 0);
  next_used_ = Load<uint16_t>(used_ + kRingIndex);
  next_available_ = next_used_;
  signalled_used_ = next_used_;
}

void Virtqueue::Fill(uint16_t head, uint32_t written) {
  CHECK(in_flight_ > 0);
  --in_flight_;
  uint8_t* entry = used_ + kRingEntries + kUsedEntryBytes * (next_used_ % setup_.size);
  Store<uint32_t>(entry, head);
  Store<uint32_t>(entry + 4, written);
  ++next_used_;
  if (used_chains_ == nullptr) return;
  // Nobody else writes to it.
  used_chains_->store(used_chains_->load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

void Virtqueue::Publish() {
  // Release: the buffers and the entries are there before the index says so.
  Store<uint16_t>(used_ + kRingIndex, next_used_, std::memory_order_release);
}

bool Virtqueue::ShouldInterrupt() {
  // The index must be out before the driver's wish is read (2.7.7.1, 2.7.10.1).
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const uint16_t before = signalled_used_;
  if (before == next_used_) return false;
  signalled_used_ = next_used_;
  if (!setup_.event_index) {
    return (Load<uint16_t>(available_ + kRingFlags) & kAvailableNoInterrupt) == 0;
  }
  const auto event =
      Load<uint16_t>(available_ + kRingEntries + sizeof(uint16_t) * size_t{setup_.size});
  return static_cast<uint16_t>(next_used_ - event - 1) < static_cast<uint16_t>(next_used_ - before);
}

void Virtqueue::DisableDoorbell() {
  // With the event index there is nothing to do: it stays where it is, behind what was popped.
  if (!setup_.event_index) Store<uint16_t>(used_ + kRingFlags, kUsedNoNotify);
}

bool Virtqueue::EnableDoorbell() {
  if (setup_.event_index) {
    Store<uint16_t>(used_ + kRingEntries + kUsedEntryBytes * size_t{setup_.size}, next_available_);
  } else {
    Store<uint16_t>(used_ + kRingFlags, 0);
  }
  // Our wish must be out before the index is read again.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return Load<uint16_t>(available_ + kRingIndex) != next_available_;
}

}  // namespace bothy::virtio
