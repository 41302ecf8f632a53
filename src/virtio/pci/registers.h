// Registers: the registers of a virtio device over PCI (virtio 1.2, 4.1.4), as one window of
// memory.
//
// The driver's side of the life of a Device: status, features, queue set-up, doorbells, interrupts.
// Knows nothing of configuration space: PciDevice (virtio/pci/pci_device.h) puts the window behind
// a BAR and says in capabilities what lies where in it.
//
//   0x0000  common configuration   0x2000  device configuration
//   0x1000  ISR                    0x3000  doorbells, 4 bytes a queue
//
// Threads: Read and Write on vCPU threads, locked; the Device's queues live on `loop`. DRIVER_OK
// and a reset are carried out there, and the status reads as 0 only when the device has let go of
// the driver's memory (2.4.2).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "chipset/bus.h"
#include "inspect/node.h"
#include "memory/guest_memory.h"
#include "support/io_loop.h"
#include "support/log.h"
#include "support/state_unit.h"
#include "support/unique_fd.h"
#include "virtio/device.h"
#include "virtio/pci/device_state.h"

namespace bothy::virtio {

inline constexpr uint64_t kCommonOffset = 0x0000;
inline constexpr uint64_t kCommonBytes = 0x40;
inline constexpr uint64_t kIsrOffset = 0x1000;
inline constexpr uint64_t kDeviceConfigOffset = 0x2000;
inline constexpr uint64_t kDeviceConfigBytes = 0x1000;
inline constexpr uint64_t kDoorbellOffset = 0x3000;
inline constexpr uint32_t kDoorbellStride = 4;
inline constexpr uint64_t kWindowBytes = 0x4000;
inline constexpr uint16_t kMaxQueues = 64;

// Where interrupts go.
class InterruptSink {
 public:
  virtual ~InterruptSink() = default;
  // Any thread. `vector` is below vector_count().
  virtual void Signal(uint16_t vector) = 0;
  // An eventfd that does the same, owned by the sink.
  virtual absl::StatusOr<int> EventFd(uint16_t vector) = 0;
  [[nodiscard]] virtual uint16_t vector_count() const = 0;
};

class Registers final : public chipset::IoDevice, public StateUnit, private Transport {
 public:
  // ResourceExhausted when the host has no descriptors left. Everything given outlives the object;
  // `loop` is run by another thread than those that create and destroy it.
  static absl::StatusOr<std::unique_ptr<Registers>> Create(Device& device, IoLoop& loop,
                                                           const memory::GuestMemory& memory,
                                                           InterruptSink& interrupts);
  // Stopped, and no vCPU is inside; the device is reset first.
  ~Registers() override;

  // chipset::IoDevice, of kWindowBytes.
  void Read(uint64_t offset, std::span<uint8_t> data) override;
  void Write(uint64_t offset, std::span<const uint8_t> data) override;

  // The eventfd that the write of a queue's doorbell rings.
  [[nodiscard]] int doorbell_fd(uint16_t queue) const { return doorbells_[queue].event.get(); }
  [[nodiscard]] uint16_t queue_count() const { return static_cast<uint16_t>(doorbells_.size()); }

  // StateUnit.
  [[nodiscard]] std::string_view name() const override { return device_.name(); }
  void Start() override;
  void Stop() override;
  void Reset() override;

  // The function's bus was reset, or its slot has lost power: as the driver's own reset. Doesn't
  // wait for the device. Any thread.
  void BusReset();

  void Inspect(inspect::Node& node) const;
  [[nodiscard]] DeviceState Snapshot() const;
  [[nodiscard]] uint64_t interrupts_sent() const {
    return interrupts_sent_.load(std::memory_order_relaxed);
  }
  // Why the device needs a reset; empty while it doesn't. Any thread.
  [[nodiscard]] std::string broken_reason() const;

 private:
  struct Doorbell {
    UniqueFd event;
    std::unique_ptr<IoLoop::Watch> watch;  // loop thread
    std::atomic<uint16_t> vector{kNoVector};
    // Counts of the queue, for inspection.
    std::atomic<uint64_t> rung{0};
    std::atomic<uint64_t> used_chains{0};
    std::atomic<uint64_t> interrupts{0};
  };

  Registers(Device& device, IoLoop& loop, const memory::GuestMemory& memory,
            InterruptSink& interrupts, std::vector<Doorbell> doorbells);

  void WatchDoorbell(uint16_t queue);
  [[nodiscard]] uint64_t OfferedFeatures() const;
  [[nodiscard]] QueueState InitialQueue(size_t index) const;
  [[nodiscard]] uint64_t ReadCommon(uint64_t offset) const;  // holds mutex_
  void WriteCommon(uint64_t offset, uint64_t value, size_t size);
  void WriteStatus(uint8_t value);                                // holds mutex_
  void WriteQueue(uint64_t offset, uint64_t value, size_t size);  // holds mutex_
  void Activate();                                                // holds mutex_
  void BeginReset();                                              // holds mutex_
  void Forget();                                                  // holds mutex_
  void SetNeedsReset(const absl::Status& reason);                 // holds mutex_
  [[nodiscard]] uint16_t CheckedVector(uint64_t value) const;
  void SignalConfig();  // holds mutex_

  // Transport.
  void InterruptQueue(uint16_t queue) override;
  void ConfigChanged() override;
  void NeedsReset(const absl::Status& reason) override;
  int LendDoorbell(uint16_t queue) override;
  void ReturnDoorbell(uint16_t queue) override;
  absl::StatusOr<int> InterruptEvent(uint16_t queue) override;

  Device& device_;
  IoLoop& loop_;
  const memory::GuestMemory& memory_;
  InterruptSink& interrupts_;
  std::vector<Doorbell> doorbells_;
  std::atomic<uint64_t> interrupts_sent_{0};
  LogLimiter log_limiter_;

  mutable std::mutex mutex_;
  DeviceState state_;          // guarded by mutex_
  bool active_ = false;        // guarded by mutex_; the device has, or is about to get, queues
  bool resetting_ = false;     // guarded by mutex_
  std::string broken_reason_;  // guarded by mutex_
};

}  // namespace bothy::virtio
