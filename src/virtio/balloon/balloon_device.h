// BalloonDevice: a virtio memory balloon (virtio 1.2, 5.5): the guest says how its memory is doing,
// and gives back what it doesn't use.
//
//   statistics           asked for when somebody wants to know, never on a timer
//   free page reporting  pages that are free in the guest take no RAM of the host
//   the balloon itself   its size is 0; what a driver puts in all the same is given back to the
//   host
//
// Everything on the thread of `loop`, but ReadConfig, WriteConfig, ResetConfig, statistics() and
// Inspect.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "inspect/node.h"
#include "memory/guest_memory.h"
#include "support/io_loop.h"
#include "virtio/balloon/statistics.h"
#include "virtio/device.h"
#include "virtio/queue/serving_rounds.h"

namespace bothy::virtio {

struct BalloonDeviceOptions {
  std::string name;                // "balloon0"
  bool report_free_pages = false;  // offer VIRTIO_BALLOON_F_PAGE_REPORTING
};

class BalloonDevice final : public Device {
 public:
  // `memory` and `loop` outlive the device.
  BalloonDevice(BalloonDeviceOptions options, memory::GuestMemory& memory, IoLoop& loop);
  ~BalloonDevice() override;

  // Asks the guest for new statistics. `done` is called when they are there; at once when nobody
  // can be asked: no driver, or the machine is paused; when the device is reset or ends. A guest
  // may take as long as it likes.
  void AskStatistics(std::function<void()> done);
  // The last ones that the guest gave since its driver began; empty ones before. Any thread.
  [[nodiscard]] balloon::Statistics statistics() const;
  // Any thread.
  void Inspect(inspect::Node& node) const;

  // Device.
  [[nodiscard]] uint16_t type() const override { return kDeviceTypeBalloon; }
  [[nodiscard]] const std::string& name() const override { return options_.name; }
  [[nodiscard]] uint64_t features() const override;
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

 private:
  enum class Role : uint8_t { kInflate, kDeflate, kStatistics, kReport };

  [[nodiscard]] Role RoleOf(uint16_t queue) const;
  [[nodiscard]] bool serving() const { return transport_ != nullptr && !quiesced_ && !broken_; }
  void Serve(uint16_t queue);
  [[nodiscard]] absl::Status Take(uint16_t queue, const Chain& chain);
  [[nodiscard]] absl::Status Inflate(const Chain& chain);
  void TakeReport(const Chain& chain);
  void TakeStatistics(uint16_t queue, const Chain& chain);
  // The buffer that the driver fills anew goes back to it.
  void ReturnStatisticsBuffer();
  void TellWaiting();

  const BalloonDeviceOptions options_;
  memory::GuestMemory& memory_;
  const std::vector<uint16_t> queue_sizes_;

  Transport* transport_ = nullptr;
  uint64_t features_ = 0;  // negotiated
  std::vector<std::unique_ptr<Virtqueue>> queues_;
  bool quiesced_ = true;
  bool broken_ = false;
  ServingRounds rounds_;
  std::optional<uint16_t> statistics_head_;  // the driver's buffer, until it is asked again
  std::vector<std::function<void()>> waiting_;
  std::vector<uint8_t> bytes_;

  // What the driver wrote to the configuration.
  std::atomic<uint32_t> actual_pages_{0};
  std::atomic<uint32_t> poison_{0};

  std::atomic<uint64_t> inflated_bytes_{0};
  std::atomic<uint64_t> reported_bytes_{0};
  std::atomic<uint64_t> discarded_bytes_{0};
  std::atomic<uint64_t> statistics_received_{0};
  mutable std::mutex mutex_;
  balloon::Statistics statistics_;  // guarded by mutex_
};

}  // namespace bothy::virtio
