// ReceiveQueue: frames from a backend's queue into the buffers of a receive virtqueue
// (virtio 1.2, 5.1.6.3, 5.1.6.4).
//
// The backend writes header and frame straight into guest memory: enough buffers for the longest
// frame are held ready, and those a frame didn't need serve the next one. While the driver has
// fewer than that, a frame goes to a buffer of our own first, which tells how long it is; it waits
// there until it fits, so nothing is lost to a driver that is late.
//
// Where the driver steers frames by their flows (RSS), one that came in here may be another
// queue's. It is copied there; while that has no room for it, it waits here, and what comes behind
// it too.
//
// On the thread of the device's loop.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "net/backend.h"
#include "virtio/net/receive_filter.h"
#include "virtio/queue/virtqueue.h"

namespace bothy::virtio {

struct ReceiveCounters {
  uint64_t frames = 0;
  uint64_t bytes = 0;      // of frames, without their headers
  uint64_t filtered = 0;   // that the driver's filters don't want
  uint64_t starved = 0;    // times that the driver had no buffers for what was there
  uint64_t too_long = 0;   // that one buffer couldn't hold, without mergeable buffers
  uint64_t failed = 0;     // the backend could give none
  uint64_t handed_on = 0;  // that came in here and were another queue's
};

class ReceiveQueue {
 public:
  struct Options {
    uint16_t index = 0;           // of the virtqueue, for errors
    bool mergeable = false;       // VIRTIO_NET_F_MRG_RXBUF was negotiated
    bool checksums = false;       // VIRTIO_NET_F_GUEST_CSUM was
    size_t longest_frame = 1514;  // bytes, without the header
  };
  // `counters` outlive it.
  ReceiveQueue(std::unique_ptr<Virtqueue> queue, const Options& options, ReceiveCounters& counters)
      : queue_(std::move(queue)), options_(options), counters_(counters) {}

  void SetLongestFrame(size_t bytes) { options_.longest_frame = bytes; }

  enum class Result : uint8_t {
    kEmpty,    // the backend has no more, and calls when it has
    kMore,     // there may be more: the round's budget is used up
    kStarved,  // no buffers; the driver rings
  };
  // The queue, of the same card, of a frame that begins with so much (kFlowStartBytes).
  using Steering = std::function<ReceiveQueue&(std::span<const uint8_t> start)>;
  // Takes up to `frames` frames, all for this queue unless there is a `steering`. An error is the
  // driver's doing and final.
  absl::StatusOr<Result> Serve(net::FrameQueue& from, const ReceiveFilter& filter,
                               const Steering& steering, int frames);
  // A frame that has been taken waits for buffers, of this queue or of its own.
  [[nodiscard]] bool frame_waits() const { return waiting_frame_ != 0; }
  // Whether the driver wants to hear of what it has been given since the last call.
  [[nodiscard]] bool TakeInterrupt() {
    return std::exchange(used_, false) && queue_->ShouldInterrupt();
  }

  // Buffers that are held ready are the driver's again.
  void GiveBack();
  // Frames of another network don't get here.
  void ForgetFrame() { waiting_frame_ = 0; }

  [[nodiscard]] Virtqueue& virtqueue() { return *queue_; }

 private:
  struct Held {
    uint16_t head;
    uint32_t bytes;
    size_t buffers;
  };

  absl::Status Hold(size_t bytes);
  // After Hold: whether there was more after all; else the driver rings when there is.
  absl::StatusOr<bool> HoldMore(size_t bytes);
  // Puts a frame that lies elsewhere into buffers of this queue. False: there aren't as many.
  absl::StatusOr<bool> Deliver(std::span<const iovec> frame, size_t bytes);
  [[nodiscard]] static ReceiveQueue& Steer(const Steering& steering, std::span<const iovec> frame,
                                           size_t bytes);
  void Count(size_t bytes);
  // Into the buffers held, or into our own: bytes with the header, 0 when there are none.
  absl::StatusOr<size_t> Take(net::FrameQueue& from);
  [[nodiscard]] bool Wanted(const ReceiveFilter& filter, std::span<const iovec> frame,
                            size_t bytes) const;
  // Into the first of the buffers held, and what is longer into our own, then the other buffers.
  absl::StatusOr<size_t> TakeShort(net::FrameQueue& from);
  // The first `bytes` of the buffers held are a frame.
  void Use(size_t bytes);

  std::unique_ptr<Virtqueue> queue_;
  Options options_;
  Chain chain_;
  std::vector<Held> held_;
  std::vector<iovec> buffers_;  // of those held, one after another
  uint64_t held_bytes_ = 0;
  size_t last_frame_ = 0;  // bytes, with the header
  std::vector<iovec> few_;
  std::vector<uint8_t> own_;  // when it is needed first
  size_t waiting_frame_ = 0;  // bytes of own_ that wait for buffers
  bool used_ = false;
  ReceiveCounters& counters_;
};

}  // namespace bothy::virtio
