// What a guest says of the frames that it sends (virtio 1.2, 5.1.6.2), checked before anybody on
// the host relies on it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "net/backend.h"
#include "virtio/net/wire.h"

namespace bothy::virtio {

using FrameHeader = std::array<uint8_t, net_wire::kHeaderBytes>;

// Why a frame isn't sent. Names, for inspection, are DropName's.
enum class SendDrop : uint8_t {
  kRunt,       // shorter than an Ethernet header
  kOversized,  // longer than any frame
  kHeader,     // a header that isn't true, or asks for what wasn't negotiated
  kLink,       // no link, or the queue isn't in use
  kBackend,    // the backend couldn't have it
};
inline constexpr size_t kSendDrops = 5;
[[nodiscard]] const char* DropName(SendDrop drop);

// Checks `header` of a frame of `frame_bytes` against what was `negotiated`, and puts right what
// the driver may leave undefined: unknown flags, num_buffers, fields that don't apply. Why it is to
// be dropped, or nothing.
[[nodiscard]] std::optional<SendDrop> CheckHeader(FrameHeader& header, uint64_t frame_bytes,
                                                  const net::Offloads& negotiated);

}  // namespace bothy::virtio
