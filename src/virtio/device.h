// Device: what a virtio device is to its transport.
//
// The transport (virtio/pci) owns status, feature negotiation, queue set-up and interrupts; the
// device owns what its queues and its configuration mean. Queues exist from Activate to Reset and
// belong to the device's loop, which the transport was given: Activate, OnDoorbell, Quiesce, Resume
// and Reset are called there, never concurrently. Those of the configuration are called on vCPU
// threads at any time, also before Activate.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "support/status.h"
#include "virtio/queue/virtqueue.h"

namespace bothy::virtio {

// Device types (5) and feature bits (6) of virtio 1.2.
inline constexpr uint16_t kDeviceTypeNet = 1;
inline constexpr uint16_t kDeviceTypeBalloon = 5;
inline constexpr uint16_t kDeviceTypeScsi = 8;
inline constexpr uint16_t kDeviceTypeSocket = 19;
inline constexpr uint16_t kDeviceTypePmem = 27;
inline constexpr uint64_t kFeatureIndirectDescriptors = uint64_t{1} << 28;
inline constexpr uint64_t kFeatureEventIndex = uint64_t{1} << 29;
inline constexpr uint64_t kFeatureVersion1 = uint64_t{1} << 32;

// Device::ReadConfig of a configuration that is `config` at the moment.
inline void ReadConfigFrom(std::span<const uint8_t> config, uint64_t offset,
                           std::span<uint8_t> data) {
  for (size_t i = 0; i < data.size(); ++i) {
    data[i] = offset < config.size() && i < config.size() - offset ? config[offset + i] : 0;
  }
}

// What the transport does for a device. Any thread, unless it says otherwise.
class Transport {
 public:
  virtual ~Transport() = default;
  // The driver is told that `queue` has used buffers. Only between Activate and Reset.
  virtual void InterruptQueue(uint16_t queue) = 0;
  // The driver is told that the device's configuration is new.
  virtual void ConfigChanged() = 0;
  // The driver broke the rules: DEVICE_NEEDS_RESET (2.1.2), and why, in the log. The device stops
  // looking at its queues until Reset.
  virtual void NeedsReset(const absl::Status& reason) = 0;

  // For queues that the host's kernel serves for a while (vhost), on the loop's thread. Lends the
  // eventfd that the doorbell of `queue` rings; OnDoorbell isn't called until it is returned, and
  // is then when it has been rung.
  virtual int LendDoorbell(uint16_t queue) = 0;
  virtual void ReturnDoorbell(uint16_t queue) = 0;
  // An eventfd that does what InterruptQueue does, owned by the transport; -1 when the driver wants
  // no interrupts of this queue. The driver doesn't change its mind before Reset, or its interrupts
  // go where they went.
  virtual absl::StatusOr<int> InterruptEvent(uint16_t queue) = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  [[nodiscard]] virtual uint16_t type() const = 0;
  // "scsi0", for logs and inspection.
  [[nodiscard]] virtual const std::string& name() const = 0;
  // The device's own features; the transport adds those of queues and version 1.
  [[nodiscard]] virtual uint64_t features() const = 0;
  // Largest size of each queue; how many there are.
  [[nodiscard]] virtual const std::vector<uint16_t>& queue_sizes() const = 0;

  // What rings and buffers may be in. RAM alone for a device that provides memory itself: it would
  // wait for its own pages.
  [[nodiscard]] virtual memory::Backing backing() const { return memory::Backing::kAny; }

  // The device-specific configuration. Reads past it see zero. Must not block.
  virtual void ReadConfig(uint64_t offset, std::span<uint8_t> data) = 0;
  virtual void WriteConfig(uint64_t offset, std::span<const uint8_t> data) = 0;
  // What the driver wrote there is forgotten. As part of every reset, on any thread.
  virtual void ResetConfig() {}

  // DRIVER_OK: `queues` has null where the driver enabled none. What the driver put there before
  // counts as rung.
  virtual void Activate(Transport& transport, uint64_t features,
                        std::vector<std::unique_ptr<Virtqueue>> queues) = 0;
  // The driver rang the doorbell of `queue`. May be spurious.
  virtual void OnDoorbell(uint16_t queue) = 0;
  // Brings the device to rest: `done` is called when nothing is in flight. Until Resume guest
  // memory and files are left alone, whatever rings. Also before Activate.
  virtual void Quiesce(std::function<void()> done) = 0;
  virtual void Resume() = 0;
  // Forgets queues and what came through them; `done` is called when nothing of them is in flight.
  // Also before Activate, and while quiesced.
  virtual void Reset(std::function<void()> done) = 0;
};

}  // namespace bothy::virtio
