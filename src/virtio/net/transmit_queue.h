// TransmitQueue: frames from a transmit virtqueue to a backend's queue (virtio 1.2, 5.1.6.2).
//
// The header is read once and checked (frame_header.h); the frame goes out of guest memory as it
// is, and whoever looks into it reads it as hostile.
//
// On the thread of the device's loop.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "net/backend.h"
#include "virtio/net/frame_header.h"
#include "virtio/net/software_offload.h"
#include "virtio/queue/virtqueue.h"

namespace bothy::virtio {

struct TransmitCounters {
  uint64_t frames = 0;
  uint64_t bytes = 0;                        // of frames, without their headers
  uint64_t blocked = 0;                      // times that the backend had no room
  std::array<uint64_t, kSendDrops> drops{};  // by SendDrop
};

class TransmitQueue {
 public:
  // `negotiated`: what the driver may leave to the host. `counters` outlive it.
  TransmitQueue(std::unique_ptr<Virtqueue> queue, const net::Offloads& negotiated,
                TransmitCounters& counters)
      : queue_(std::move(queue)), negotiated_(negotiated), counters_(counters) {}

  enum class Result : uint8_t {
    kEmpty,      // the driver rings when it has more
    kLookAgain,  // there was something, so there is likely to be more soon; nobody rings
    kMore,       // the round's budget is used up
    kBlocked,    // the backend calls when it has room
  };
  // Sends up to `frames` frames to a backend that `takes` so much; null for `to` drops them. An
  // error is the driver's doing and final.
  absl::StatusOr<Result> Serve(net::FrameQueue* to, const net::Offloads& takes, int frames);
  // Whether the driver wants to hear of what it has been given back since the last call.
  [[nodiscard]] bool TakeInterrupt() {
    return std::exchange(used_, false) && queue_->ShouldInterrupt();
  }

  // A frame that waits for the backend is the driver's again.
  void GiveBack();

  [[nodiscard]] Virtqueue& virtqueue() { return *queue_; }

 private:
  // Makes pieces_ of the chain; why not, when it is to be dropped. An error is final.
  absl::StatusOr<std::optional<SendDrop>> Prepare();
  [[nodiscard]] net::FrameQueue::Sent Send(net::FrameQueue& to, const net::Offloads& takes);
  // The same, of a frame that has to be finished first.
  [[nodiscard]] net::FrameQueue::Sent SendFinished(net::FrameQueue& to);

  std::unique_ptr<Virtqueue> queue_;
  const net::Offloads negotiated_;
  Chain chain_;
  bool waits_ = false;  // the chain was taken, and is not sent yet
  uint64_t frame_bytes_ = 0;
  FrameHeader header_{};
  std::vector<iovec> pieces_;  // header and frame
  std::vector<iovec> behind_;
  std::vector<uint8_t> gathered_;  // of frames in more pieces than a system call takes
  SoftwareOffload offload_;
  bool finishing_ = false;         // the frame, by offload_
  std::vector<uint8_t> finished_;  // not sent yet, unless empty
  bool used_ = false;
  TransmitCounters& counters_;
};

}  // namespace bothy::virtio
