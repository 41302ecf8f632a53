// FrameCounters: what went through a backend and what didn't, for inspection.
//
// Written by the loop's thread alone, read by any.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "inspect/node.h"

namespace bothy::net {

// Why a frame went nowhere.
enum class Drop : uint8_t {
  kRunt,          // shorter than an Ethernet header
  kOversized,     // longer than the backend's MTU allows
  kSmallBuffers,  // longer than the buffers it was to go into
  kLinkDown,      // the device is down or gone, or the queue isn't in use
  kRefused,       // the host's kernel wouldn't have it
  kNotOffered,    // it asks for an offload that the backend doesn't offer
  kHostLoopback,  // it was for the host's own loopback addresses
  kTooManyFlows,  // it would have begun one connection too many
  kQueueFull,     // the guest didn't take frames quickly enough
  kFragment,      // a piece of a packet, where only whole ones can be had
};
inline constexpr size_t kDrops = 10;

// What went through a device of the host by whatever path, in the guest's directions.
struct DeviceTotals {
  uint64_t sent_frames = 0;
  uint64_t sent_bytes = 0;
  uint64_t sent_dropped = 0;
  uint64_t received_frames = 0;
  uint64_t received_bytes = 0;
  uint64_t received_dropped = 0;
};

class FrameCounters {
 public:
  // Bytes are those of the frame, without its header.
  void CountSent(size_t bytes) {
    Add(sent_frames_, 1);
    Add(sent_bytes_, bytes);
  }
  void CountReceived(size_t bytes) {
    Add(received_frames_, 1);
    Add(received_bytes_, bytes);
  }
  void CountSendDrop(Drop why) { Add(send_drops_[static_cast<size_t>(why)], 1); }
  void CountReceiveDrop(Drop why) { Add(receive_drops_[static_cast<size_t>(why)], 1); }

  // Any thread.
  [[nodiscard]] uint64_t sent_frames() const { return sent_frames_.load(kRelaxed); }
  [[nodiscard]] uint64_t received_frames() const { return received_frames_.load(kRelaxed); }
  [[nodiscard]] uint64_t send_drops(Drop why) const {
    return send_drops_[static_cast<size_t>(why)].load(kRelaxed);
  }
  [[nodiscard]] uint64_t receive_drops(Drop why) const {
    return receive_drops_[static_cast<size_t>(why)].load(kRelaxed);
  }
  // Directions as the guest sees them. Of the reasons to drop only those that have happened. With
  // `totals` frames and bytes are those, and what the device itself dropped is a reason of its own.
  void Inspect(inspect::Node& node, const std::optional<DeviceTotals>& totals = {}) const;

 private:
  static constexpr auto kRelaxed = std::memory_order_relaxed;
  using Counter = std::atomic<uint64_t>;
  // One writer: no need for an atomic addition.
  static void Add(Counter& counter, uint64_t amount) {
    counter.store(counter.load(kRelaxed) + amount, kRelaxed);
  }

  Counter sent_frames_ = 0;
  Counter sent_bytes_ = 0;
  Counter received_frames_ = 0;
  Counter received_bytes_ = 0;
  std::array<Counter, kDrops> send_drops_{};
  std::array<Counter, kDrops> receive_drops_{};
};

}  // namespace bothy::net
