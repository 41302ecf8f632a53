// SoftwareOffload: does what a frame's header leaves to be done, for a backend that can't: a card
// that has been moved there keeps the features that its driver knows.
//
//   if (!offload.Begin(frame, header)) drop;
//   while (offload.Next(segment)) send(segment);
//
// Frames are hostile: everything is checked against the frame's end. Plain state, one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "net/backend.h"
#include "virtio/net/frame_header.h"

namespace bothy::virtio {

class SoftwareOffload {
 public:
  // Segments smaller than any TCP's are refused, or a frame would become tens of thousands.
  static constexpr uint16_t kLeastSegment = 48;

  // Whether `header`, which CheckHeader has passed, asks for what `takes` hasn't.
  [[nodiscard]] static bool Needed(const FrameHeader& header, const net::Offloads& takes);

  // `frame` stays where it is, and as it is but for its checksum, until the last Next. False when
  // it isn't what its header says.
  [[nodiscard]] bool Begin(std::span<uint8_t> frame, const FrameHeader& header);
  // The next finished frame, with a header that leaves nothing to be done. False: there are no
  // more.
  bool Next(std::vector<uint8_t>& out);

 private:
  // Where things are in the frame: the network's header, the transport's, the payload.
  [[nodiscard]] bool FindHeaders(uint8_t type, size_t checksum_start, size_t checksum_offset);
  void FinishHeaders(std::span<uint8_t> segment, size_t payload_bytes) const;

  std::span<uint8_t> frame_;
  bool segments_ = false;
  bool six_ = false;
  bool udp_ = false;
  size_t network_ = 0;
  size_t transport_ = 0;
  size_t payload_ = 0;
  size_t segment_bytes_ = 0;
  size_t done_ = 0;     // bytes of the payload
  uint16_t count_ = 0;  // of segments made
  bool ended_ = true;
};

}  // namespace bothy::virtio
