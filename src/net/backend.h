// Backend: where the Ethernet frames of one NIC go: a tap device, a port of a host bridge, NAT in
// user space.
//
// A frame is what Ethernet calls one, from the destination's address to the last byte of payload,
// without its check sequence; in front of it stand kHeaderBytes of `struct virtio_net_hdr_v1` of
// <linux/virtio_net.h>, little-endian, which say what is left to do of checksum and segmentation.
// Taps speak that header themselves, so nothing is copied; other backends look into it.
//
// A backend has one FrameQueue for each queue pair. All of it is used on the thread of the IoLoop
// it was opened on, except where it says otherwise.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "inspect/node.h"
#include "support/status.h"

namespace bothy::net {

inline constexpr size_t kHeaderBytes = 12;
// A frame with segmentation left to do is at most so long, without its header.
inline constexpr size_t kLargestFrame = 65'550;

// What the receiver of frames takes: the driver of those that come in, the backend of those sent.
struct Offloads {
  bool checksum = false;  // partial checksums
  bool tso4 = false;      // TCP segments over IPv4, larger than the MTU
  bool tso6 = false;
  bool ecn = false;  // those with ECN
  bool uso = false;  // UDP segments, both
  friend bool operator==(const Offloads&, const Offloads&) = default;
};

class FrameQueue {
 public:
  virtual ~FrameQueue() = default;

  enum class Sent : uint8_t {
    kYes,
    kLater,    // nothing was sent; on_writable is called when it is worth another try
    kDropped,  // the backend can't have this frame, now or ever; it has counted it
  };
  // Header and frame, in fewer than IOV_MAX buffers.
  virtual Sent Send(std::span<const iovec> frame) = 0;

  // The next frame with its header into fewer than IOV_MAX buffers, the header being the backend's
  // to fill but for num_buffers: bytes written, 0 when there is none, which arms on_readable.
  // A frame that is longer than the buffers is dropped and counted, and the next one taken.
  virtual absl::StatusOr<size_t> Receive(std::span<const iovec> into) = 0;

  // Called after Receive had none or Send said kLater, once each; never from within those calls.
  virtual void SetCallbacks(std::function<void()> on_readable,
                            std::function<void()> on_writable) = 0;

  // The tap that this queue is, for the kernel's data path; -1 when it isn't one. The queue must be
  // left alone while the kernel has it.
  [[nodiscard]] virtual int tap_fd() const = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  [[nodiscard]] virtual uint16_t queue_pairs() const = 0;
  [[nodiscard]] virtual FrameQueue& queue(uint16_t pair) = 0;
  // Frames go through the first `pairs` queues from now on; one to begin with. Those that come into
  // use are to be asked for frames.
  virtual absl::Status UseQueuePairs(uint16_t pairs) = 0;

  // Of frames that the guest sends: what the backend takes.
  [[nodiscard]] virtual Offloads offloads() const = 0;
  // Of frames that the guest receives: what its driver takes.
  virtual absl::Status SetReceiveOffloads(const Offloads& offloads) = 0;

  // Bytes of payload a frame, without segmentation offload.
  [[nodiscard]] virtual uint16_t mtu() const = 0;
  // Whether frames get anywhere; `on_change` is called on the loop's thread.
  [[nodiscard]] virtual bool link_up() const = 0;
  virtual void SetLinkCallback(std::function<void()> on_change) = 0;

  // "tap tap0", "port veth1 of bridge br0", "user 10.0.2.0/24".
  [[nodiscard]] virtual std::string description() const = 0;
  // Counters, drops with their reasons. Any thread.
  virtual void Inspect(inspect::Node& node) const = 0;
};

}  // namespace bothy::net
