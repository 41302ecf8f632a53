// ScsiController: a virtio-scsi host bus adapter (virtio 1.2, 5.6) with one SCSI target.
//
// Takes requests off its queues, hands them to a scsi::Target, and answers. Of SCSI it knows only
// what the transport must: where the LUN and the CDB are, and which response a target's answer is.
// Units come and go in the target; Announce tells the driver.
//
// Everything on the thread of `loop`, but ReadConfig, WriteConfig and counters().
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "scsi/target.h"
#include "support/io_loop.h"
#include "virtio/device.h"
#include "virtio/queue/interrupt_moderation.h"
#include "virtio/queue/serving_rounds.h"
#include "virtio/scsi/event_queue.h"
#include "virtio/scsi/wire.h"

namespace bothy::virtio {

struct ScsiControllerOptions {
  std::string name;             // "scsi0"
  uint16_t request_queues = 1;  // 1..kMaxScsiRequestQueues: one a vCPU serves best
  // The time in ns of a steady clock, for InterruptModeration; null: the host's.
  std::function<int64_t()> now = {};
};
inline constexpr uint16_t kMaxScsiRequestQueues = 16;

class ScsiController final : public Device {
 public:
  // `target` and `loop` outlive the controller.
  ScsiController(ScsiControllerOptions options, scsi::Target& target, IoLoop& loop);
  ~ScsiController() override;

  enum class Change : uint8_t {
    kAdded,
    kRemoved,
    kCapacity,  // also whether it may be written
    kMedium,
  };
  // Tells the driver of a change at `lun`. `done` is called once, with what came of it.
  uint64_t Announce(Change change, uint16_t lun, EventQueue::Done done);
  void CancelAnnounce(uint64_t id) { events_.Cancel(id); }

  // Device.
  [[nodiscard]] uint16_t type() const override { return kDeviceTypeScsi; }
  [[nodiscard]] const std::string& name() const override { return options_.name; }
  [[nodiscard]] uint64_t features() const override {
    return scsi_wire::kFeatureHotplug | scsi_wire::kFeatureChange;
  }
  [[nodiscard]] const std::vector<uint16_t>& queue_sizes() const override { return queue_sizes_; }
  void ReadConfig(uint64_t offset, std::span<uint8_t> data) override;
  void WriteConfig(uint64_t offset, std::span<const uint8_t> data) override;
  void ResetConfig() override;
  void Activate(Transport& transport, uint64_t features,
                std::vector<std::unique_ptr<Virtqueue>> queues) override;
  void OnDoorbell(uint16_t queue) override;
  void Quiesce(std::function<void()> done) override;
  void Resume() override;
  void Reset(std::function<void()> done) override;

  struct Counters {
    uint64_t requests = 0;
    uint64_t task_management = 0;
  };
  // Any thread.
  [[nodiscard]] Counters counters() const;

 private:
  class Request;  // a command under way

  void ServeRequests(uint16_t index);
  [[nodiscard]] absl::Status StartRequest(uint16_t index, std::unique_ptr<Request> request);
  void Finish(Request& request);
  void ServeControl();
  [[nodiscard]] absl::Status StartControl(const Chain& chain);
  [[nodiscard]] absl::Status StartTaskManagement(const Chain& chain);
  [[nodiscard]] absl::Status AnswerNotification(const Chain& chain);
  void ServeEvents();
  void Broken(const absl::Status& reason);
  // At the end of this round of the loop, once for all that completes in it, or later where more is
  // to be expected soon (InterruptModeration).
  void InterruptSoon(uint16_t queue);
  void EndRound();
  // Whether the driver hears of what `queue` has completed now; else the queue is looked at again.
  [[nodiscard]] bool IsTimeToInterrupt(uint16_t queue);
  void OnIdle();
  [[nodiscard]] bool serving() const { return transport_ != nullptr && !quiesced_ && !broken_; }

  ScsiControllerOptions options_;  // as completed by the constructor
  scsi::Target& target_;
  IoLoop& loop_;
  std::vector<uint16_t> queue_sizes_;

  std::mutex config_mutex_;
  uint32_t sense_size_ = scsi_wire::kDefaultSenseSize;  // guarded by config_mutex_
  uint32_t cdb_size_ = scsi_wire::kDefaultCdbSize;      // guarded by config_mutex_

  // As the driver had set them at DRIVER_OK.
  size_t active_sense_size_ = 0;
  size_t active_cdb_size_ = 0;
  Transport* transport_ = nullptr;
  std::vector<std::unique_ptr<Virtqueue>> queues_;  // null: not enabled, or the event queue
  std::vector<InterruptModeration> moderation_;     // of the request queues; others have none
  EventQueue events_;
  bool quiesced_ = true;
  bool broken_ = false;
  uint64_t interrupt_mask_ = 0;  // queues whose driver hasn't heard of all that completed
  bool interrupt_posted_ = false;
  ServingRounds rounds_;
  uint64_t polled_ = 0;  // queues that wait for requests with the doorbell off
  size_t in_flight_ = 0;
  std::vector<std::function<void()>> on_idle_;
  std::vector<std::unique_ptr<Request>> spare_;
  std::atomic<uint64_t> requests_{0};
  std::atomic<uint64_t> task_management_{0};
};

}  // namespace bothy::virtio
