// MemoryBalloon: the balloon of a machine, a virtio function on bus 0, by which the guest says what
// of its memory it doesn't need.
//
// The device has a thread of its own. Threads: Create and destruction on the life-cycle thread;
// AskGuest and Inspect on the control thread; available_bytes on any.
#pragma once

#include <functional>
#include <memory>

#include "inspect/node.h"
#include "machine/config.h"
#include "machine/device_host.h"
#include "support/event_loop.h"
#include "support/io_loop.h"
#include "virtio/balloon/balloon_device.h"
#include "virtio/pci/pci_device.h"

namespace bothy::machine {

class MemoryBalloon {
 public:
  static absl::StatusOr<std::unique_ptr<MemoryBalloon>> Create(const MemoryConfig& config,
                                                               const DeviceHost& host,
                                                               memory::GuestMemory& memory,
                                                               EventLoop& control);
  // The function is detached from its bus.
  ~MemoryBalloon();
  MemoryBalloon(const MemoryBalloon&) = delete;
  MemoryBalloon& operator=(const MemoryBalloon&) = delete;

  // Machine::AskGuestMemory.
  void AskGuest(std::function<void()> done);
  // What the guest said last; 0 when it has said nothing.
  [[nodiscard]] uint64_t available_bytes() const;
  // A directory "balloon0".
  void Inspect(inspect::Node& node) const;

 private:
  MemoryBalloon(const DeviceHost& host, EventLoop& control) : host_(host), control_(control) {}
  absl::Status Open(const MemoryConfig& config, memory::GuestMemory& memory);

  const DeviceHost& host_;
  EventLoop& control_;
  std::unique_ptr<IoThread> io_;
  std::unique_ptr<virtio::BalloonDevice> device_;  // ends on its thread
  std::unique_ptr<virtio::PciDevice> function_;
  bool counted_ = false;  // among the machine's units
};

}  // namespace bothy::machine
