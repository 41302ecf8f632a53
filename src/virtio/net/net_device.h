// NetDevice: a virtio network card (virtio 1.2, 5.1) over a net::Backend.
//
// Frames go between the backend's queues and the driver's, on the thread of `loop`: all queue pairs
// of a card share it, in rounds of bounded work. Where the backend is a tap and the host has
// vhost-net, its kernel does that instead (KernelPath), with the same features but for steering by
// flow (RSS). Filters, link, queue pairs, steering and receive offloads are set over the control
// queue (control_commands.cc).
//
// Everything on the thread of `loop`, but ReadConfig, WriteConfig, Inspect.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "inspect/node.h"
#include "memory/guest_memory.h"
#include "net/backend.h"
#include "support/io_loop.h"
#include "support/log.h"
#include "virtio/device.h"
#include "virtio/net/receive_filter.h"
#include "virtio/net/receive_queue.h"
#include "virtio/net/receive_steering.h"
#include "virtio/net/transmit_queue.h"
#include "virtio/net/vhost_net.h"
#include "virtio/queue/serving_rounds.h"

namespace bothy::virtio {

// Doorbells and interrupts of one function are limited (kMaxQueues).
inline constexpr uint16_t kMaxNetQueuePairs = 16;

enum class KernelPath : uint8_t {
  kAuto,  // where it can be
  kOff,
  kOn,  // without it there is no card
};

struct NetDeviceOptions {
  std::string name;  // "net0"
  MacBytes mac{};    // of unicast
  KernelPath kernel_path = KernelPath::kAuto;
};

class NetDevice final : public Device {
 public:
  // `loop` and `memory` outlive the device; the backend was opened on `loop`. As many queue pairs
  // as the backend has, up to kMaxNetQueuePairs. FailedPrecondition or PermissionDenied when
  // `kOn` is asked for and can't be.
  static absl::StatusOr<std::unique_ptr<NetDevice>> Create(NetDeviceOptions options,
                                                           std::unique_ptr<net::Backend> backend,
                                                           const memory::GuestMemory& memory,
                                                           IoLoop& loop);
  // Reset.
  ~NetDevice() override;

  // Another network; the old one is returned. The link must be down (SetLink). What the driver
  // leaves to the host and that backend can't do is done here (SoftwareOffload).
  std::unique_ptr<net::Backend> ExchangeBackend(std::unique_ptr<net::Backend> backend);
  // Takes the link down whatever the backend says of it, or leaves it to the backend again, with
  // word to the driver. When it is up again the driver is asked to announce itself.
  // `seen`, if not null, is called on the loop when the driver has looked, or at once if there is
  // none that would.
  void SetLink(bool wanted, std::function<void()> seen);
  // Gives up waiting for the driver to look: `seen` is called.
  void StopWaitingForDriver();
  // The guest's memory has changed: what the kernel knows of it is renewed.
  void MemoryChanged();

  // Device.
  [[nodiscard]] uint16_t type() const override { return kDeviceTypeNet; }
  [[nodiscard]] const std::string& name() const override { return options_.name; }
  [[nodiscard]] uint64_t features() const override { return features_; }
  [[nodiscard]] const std::vector<uint16_t>& queue_sizes() const override { return queue_sizes_; }
  void ReadConfig(uint64_t offset, std::span<uint8_t> data) override;
  // Nothing in it is the driver's to write since version 1.
  void WriteConfig(uint64_t, std::span<const uint8_t>) override {}
  void Activate(Transport& transport, uint64_t features,
                std::vector<std::unique_ptr<Virtqueue>> queues) override;
  void OnDoorbell(uint16_t queue) override;
  void Quiesce(std::function<void()> done) override;
  void Resume() override;
  void Reset(std::function<void()> done) override;

  // What is the loop's: counters, offloads in use, filters (inspection.cc). On the loop's thread.
  void Inspect(inspect::Node& node) const;

  [[nodiscard]] net::Backend& backend() { return *backend_; }
  // Whether the kernel serves any pair.
  [[nodiscard]] bool kernel_path_active() const;

 private:
  struct Pair {
    std::unique_ptr<ReceiveQueue> receive;    // null: the driver hasn't enabled it
    std::unique_ptr<TransmitQueue> transmit;  // the same
    ReceiveCounters received;
    TransmitCounters sent;
    // A frame sent was answered within the same turn of the loop, or may be.
    bool answered_at_once = true;
    bool in_kernel = false;  // the kernel serves both queues
  };

  NetDevice(NetDeviceOptions options, std::unique_ptr<net::Backend> backend,
            const memory::GuestMemory& memory, IoLoop& loop);
  [[nodiscard]] uint64_t OfferedFeatures() const;
  // As a driver with `features` can be served: those whose condition (5.1.3.1) isn't met are none.
  [[nodiscard]] static net::Offloads ReceiveOffloads(uint64_t features);
  [[nodiscard]] static net::Offloads SendOffloads(uint64_t features);
  void AttachBackend();
  // As UsedPairs says; false, and a word in the log, when the backend can't.
  bool UseQueuePairs();

  [[nodiscard]] uint16_t mtu() const;
  [[nodiscard]] bool Has(uint64_t feature) const { return (active_features_ & feature) != 0; }
  [[nodiscard]] bool HasPairs() const;
  [[nodiscard]] uint16_t ControlQueue() const;
  [[nodiscard]] bool serving() const { return transport_ != nullptr && !quiesced_ && !broken_; }
  // The pairs that frames go through: those the driver has asked for, as far as the backend has.
  [[nodiscard]] uint16_t UsedPairs() const;
  void ServeReceive(uint16_t pair);
  void ServeTransmit(uint16_t pair);
  void ServeAll();
  void ServeControl();
  [[nodiscard]] absl::Status Answer(const Chain& chain);
  // control_commands.cc: whether a command was carried out.
  [[nodiscard]] bool Execute(uint8_t command_class, uint8_t command, std::span<const uint8_t> data);
  [[nodiscard]] bool SetPairs(std::span<const uint8_t> data);
  [[nodiscard]] bool SetSteering(std::span<const uint8_t> data);
  // Without `steering` the backend chooses the receive queues. False: all is as it was.
  [[nodiscard]] bool UsePairs(uint16_t pairs, std::optional<ReceiveSteering> steering);
  [[nodiscard]] bool SetGuestOffloads(std::span<const uint8_t> data);
  void ApplyReceiveOffloads(const net::Offloads& offloads);
  void Broken(const absl::Status& reason);
  void ShowLink(bool announce);
  void LookedAtStatus();

  void InspectSteering(inspect::Node& node) const;

  // The kernel's data path (kernel_path.cc): takes over if it can, and gives back.
  absl::Status OpenKernelPath();
  // Whether there is one depends on the backend.
  void LookForTap();
  [[nodiscard]] std::string WhyNotKernel() const;
  [[nodiscard]] bool KernelMayServe() const;
  void StartKernelPath();
  void StopKernelPath();
  absl::Status StartKernelPair(uint16_t pair);
  void OnKernelError();

  const NetDeviceOptions options_;
  std::unique_ptr<net::Backend> backend_;  // not null
  const memory::GuestMemory& memory_;
  IoLoop& loop_;
  uint16_t max_pairs_;
  uint64_t features_;  // offered; as the first backend had them
  std::vector<uint16_t> queue_sizes_;

  mutable std::mutex config_mutex_;
  // As this driver was told, which the device may not change (5.1.4.1): guarded by config_mutex_
  uint16_t config_mtu_;
  MacBytes config_mac_;          // guarded by config_mutex_
  uint16_t config_status_ = 0;   // guarded by config_mutex_
  bool tell_when_read_ = false;  // guarded by config_mutex_

  Transport* transport_ = nullptr;
  uint64_t active_features_ = 0;
  std::vector<Pair> pairs_;  // max_pairs_
  std::unique_ptr<Virtqueue> control_;
  Chain control_chain_;
  std::vector<uint8_t> command_;
  uint16_t active_pairs_ = 1;
  std::optional<ReceiveSteering> steering_;  // by the driver; names receive queues that are there
  ReceiveFilter filter_;
  net::Offloads receive_offloads_;
  bool quiesced_ = true;
  bool broken_ = false;
  bool link_wanted_ = true;
  std::function<void()> on_seen_;
  ServingRounds rounds_;
  uint64_t control_commands_ = 0;
  uint64_t control_errors_ = 0;

  std::vector<std::unique_ptr<VhostNet>> kernel_;  // one a pair, once opened
  std::vector<std::unique_ptr<IoLoop::Watch>> kernel_errors_;
  LogLimiter log_;              // the driver starts and resets it
  std::string why_not_kernel_;  // with this backend; empty: it may
  std::string why_not_now_;     // why it couldn't be started when that was tried last
  bool kernel_failed_ = false;  // with this driver's rings
  uint64_t kernel_starts_ = 0;
  std::shared_ptr<NetDevice*> self_;  // expires with the device, for what is posted
};

}  // namespace bothy::virtio
