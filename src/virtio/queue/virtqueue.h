// Virtqueue: the device's side of a split virtqueue (virtio 1.2, 2.7).
//
// Rings and descriptors are hostile and change while they are read: every field is read once, into
// a private copy, and checked there. A driver that breaks the rules gets an InvalidArgument from
// Pop, which is final: the device sets NEEDS_RESET. Nothing is ever accessed but the rings and the
// buffers that a chain names, all of them RAM of the guest.
//
//   while (true) {
//     absl::StatusOr<bool> popped = queue.Pop(chain);
//     if (!popped.ok()) return Broken(popped.status());
//     if (!*popped) break;
//     ... read chain.readable, fill chain.writable ...
//     queue.Push(chain.head, bytes_written);
//   }
//   if (queue.ShouldInterrupt()) interrupt();
//
// One thread: that of the device's loop.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "memory/guest_memory.h"
#include "support/status.h"

namespace bothy::virtio {

inline constexpr uint16_t kMaxQueueSize = 1024;

struct QueueSetup {
  uint16_t size = 0;            // descriptors, a power of two up to kMaxQueueSize
  uint64_t descriptor_gpa = 0;  // 16-byte aligned
  uint64_t driver_gpa = 0;      // "available" ring, 2-byte aligned
  uint64_t device_gpa = 0;      // "used" ring, 4-byte aligned
  bool indirect = false;        // VIRTIO_F_INDIRECT_DESC was negotiated
  bool event_index = false;     // VIRTIO_F_EVENT_IDX was negotiated
  // Rings and buffers may be in memory of devices, too (GuestMemory::AddDeviceMemory), or not.
  memory::Backing backing = memory::Backing::kAny;
};

// One request of the driver: buffers to read, then buffers to write. The vectors are reused from
// one Pop to the next, so that nothing is allocated once they have grown.
struct Chain {
  uint16_t head = 0;
  std::vector<iovec> readable;
  std::vector<iovec> writable;
  uint64_t readable_bytes = 0;  // at most 4 GiB each
  uint64_t writable_bytes = 0;
};

class Virtqueue {
 public:
  // InvalidArgument when the driver's set-up breaks the rules or the rings aren't RAM.
  // `used_chains` grows by the chains that are given back; it outlives the queue, and any thread
  // may read it.
  static absl::StatusOr<std::unique_ptr<Virtqueue>> Create(
      const memory::GuestMemory& memory, const QueueSetup& setup,
      std::atomic<uint64_t>* used_chains = nullptr);

  // The next chain, if there is one.
  absl::StatusOr<bool> Pop(Chain& chain);
  // The last `chains` that were popped, none of which was pushed, were never popped: the next Pop
  // begins with the first of them again.
  void GiveBack(uint16_t chains);
  // Gives the chain that began at `head` back, with `written` bytes of its writable part filled.
  void Push(uint16_t head, uint32_t written) {
    Fill(head, written);
    Publish();
  }
  // The same in two steps, for chains that the driver must see together: it sees none of those
  // filled before Publish.
  void Fill(uint16_t head, uint32_t written);
  void Publish();
  // Whether the driver wants to be told of what was pushed since the last call.
  [[nodiscard]] bool ShouldInterrupt();

  // The driver needs to ring no more: work is under way, and Pop is called again anyhow.
  void DisableDoorbell();
  // From now on the driver rings. True when there is a chain already, for which it won't.
  [[nodiscard]] bool EnableDoorbell();

  [[nodiscard]] uint16_t size() const { return setup_.size; }
  [[nodiscard]] const QueueSetup& setup() const { return setup_; }
  // Chains popped and not pushed.
  [[nodiscard]] uint32_t in_flight() const { return in_flight_; }

  // For those who serve the rings in its place for a while (the host's kernel), with nothing in
  // flight, and give chains back in their order: where the rings are in this process, and the next
  // chain to pop. ContinueAtUsed goes on afterwards, behind what the ring says was given back: what
  // they had taken and stopped at is popped again.
  struct Rings {
    uint8_t* descriptors;
    uint8_t* available;
    uint8_t* used;
  };
  [[nodiscard]] Rings rings() const { return {descriptors_, available_, used_}; }
  [[nodiscard]] uint16_t next_available() const { return next_available_; }
  void ContinueAtUsed();

 private:
  struct Descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
  };
  Virtqueue(const memory::GuestMemory& memory, const QueueSetup& setup,
            std::span<uint8_t> descriptors, std::span<uint8_t> available, std::span<uint8_t> used,
            std::atomic<uint64_t>* used_chains)
      : memory_(memory),
        setup_(setup),
        used_chains_(used_chains),
        descriptors_(descriptors.data()),
        available_(available.data()),
        used_(used.data()) {}

  // Indirect tables may lie at any address.
  static Descriptor ReadDescriptor(const uint8_t* at);
  [[nodiscard]] absl::Status Walk(uint16_t head, Chain& chain);
  [[nodiscard]] absl::Status AddBuffer(const Descriptor& descriptor, uint32_t position,
                                       Chain& chain) const;

  const memory::GuestMemory& memory_;
  const QueueSetup setup_;
  std::atomic<uint64_t>* const used_chains_;  // null: nobody counts
  // Host addresses of the rings, raw bytes that the guest changes at any time.
  uint8_t* const descriptors_;
  uint8_t* const available_;
  uint8_t* const used_;
  uint16_t next_available_ = 0;  // free-running
  uint16_t next_used_ = 0;       // free-running
  uint16_t signalled_used_ = 0;  // next_used_ when ShouldInterrupt was last asked
  uint32_t in_flight_ = 0;
};

}  // namespace bothy::virtio
