// VhostNet: the host kernel's data path for one queue pair of a NIC on a tap (<linux/vhost.h>).
//
// The kernel takes frames between the tap and the rings with a thread of its own; doorbells reach
// it by their eventfds and interrupts leave by irqfds, so this process has no part in it between
// Start and Stop. After Stop nothing is in flight, and the rings go on where it says.
//
// On the thread of the device's loop.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "memory/guest_memory.h"
#include "support/status.h"
#include "support/unique_fd.h"
#include "virtio/queue/virtqueue.h"

namespace bothy::virtio {

class VhostNet {
 public:
  // FailedPrecondition when the host hasn't /dev/vhost-net, or an older one than this needs;
  // PermissionDenied when it may not be used.
  static absl::StatusOr<std::unique_ptr<VhostNet>> Open();
  // Stopped.
  ~VhostNet() = default;

  struct Ring {
    Virtqueue* queue = nullptr;  // nothing in flight
    int doorbell = -1;
    int interrupt = -1;  // -1: none is wanted
  };
  // `rings`: receive, transmit. `features` as the driver has negotiated them.
  absl::Status Start(const memory::GuestMemory& memory, uint64_t features,
                     const std::array<Ring, 2>& rings, int tap_fd);
  // The rings' virtqueues go on behind what the kernel has given back. Also after a Start that
  // failed.
  void Stop();

  // Becomes readable when the driver broke the rules and the kernel has stopped looking.
  [[nodiscard]] int error_fd() const { return error_.get(); }

 private:
  VhostNet(UniqueFd fd, UniqueFd error, uint64_t features)
      : fd_(std::move(fd)), error_(std::move(error)), features_(features) {}
  absl::Status SetUp(uint32_t index, const Ring& ring);

  UniqueFd fd_;
  UniqueFd error_;
  uint64_t features_;  // of the host
  std::array<Ring, 2> rings_;
};

}  // namespace bothy::virtio
