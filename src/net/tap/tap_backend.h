// TapBackend: frames through a tap device: one that the host's administrator looks after, or one
// that is a port of a bridge.
//
// The link is up while the device is there and up, and, for a port, while it is one of that bridge
// and the bridge is up. The backend of a device that went away stays, with its link down.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "net/backend.h"
#include "net/frame_counters.h"
#include "net/netlink/link_watch.h"
#include "net/netlink/message.h"
#include "net/tap/tap_device.h"
#include "net/tap/tap_queue.h"
#include "support/io_loop.h"

namespace bothy::net {

class TapBackend final : public Backend {
 public:
  struct Bridge {
    std::string name;
    int index = 0;
  };
  // `bridge` is the one that `device` is a port of. One queue is in use to begin with.
  static absl::StatusOr<std::unique_ptr<Backend>> Create(TapDevice device,
                                                         std::optional<Bridge> bridge,
                                                         IoLoop& loop);
  // A tap that was brought up for the backend goes down again.
  ~TapBackend() override;

  [[nodiscard]] uint16_t queue_pairs() const override {
    return static_cast<uint16_t>(queues_.size());
  }
  [[nodiscard]] FrameQueue& queue(uint16_t pair) override { return *queues_.at(pair); }
  absl::Status UseQueuePairs(uint16_t pairs) override;
  [[nodiscard]] Offloads offloads() const override;
  absl::Status SetReceiveOffloads(const Offloads& offloads) override;
  [[nodiscard]] uint16_t mtu() const override { return mtu_; }
  [[nodiscard]] bool link_up() const override { return link_up_.load(std::memory_order_relaxed); }
  void SetLinkCallback(std::function<void()> on_change) override {
    on_link_change_ = std::move(on_change);
  }
  [[nodiscard]] std::string description() const override;
  void Inspect(inspect::Node& node) const override;

 private:
  TapBackend(TapDevice device, std::optional<Bridge> bridge, IoLoop& loop);
  [[nodiscard]] bool FindLinkState() const;
  void OnLinkNews();
  // By whatever path since the backend was opened; of a device that is out of sight what was last
  // seen. Any thread.
  [[nodiscard]] DeviceTotals Totals() const;

  const std::string name_;
  const int index_;
  const bool made_;
  const bool brought_up_;
  const bool has_uso_;
  const uint16_t mtu_;
  const std::optional<Bridge> bridge_;
  FrameCounters counters_;
  LinkStatistics at_first_;  // the tap's when the backend was opened
  mutable std::mutex totals_mutex_;
  mutable DeviceTotals totals_;  // guarded by totals_mutex_
  std::vector<std::unique_ptr<TapQueue>> queues_;
  std::unique_ptr<LinkWatch> watch_;
  std::function<void()> on_link_change_;
  std::atomic<uint16_t> pairs_in_use_ = 0;
  std::atomic<bool> link_up_ = false;
  std::atomic<bool> in_sight_ = true;  // in the network namespace that the server is in
};

}  // namespace bothy::net
