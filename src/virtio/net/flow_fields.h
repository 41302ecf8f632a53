// FlowFields: what the hash of a frame is made of: the addresses of its packet and, if a driver
// wants them, its ports (virtio 1.2, 5.1.6.4.3).
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "virtio/net/toeplitz_hash.h"

namespace bothy::virtio {

struct FlowFields {
  std::array<uint8_t, ToeplitzHash::kMostInputBytes> bytes;
  size_t size = 0;  // 0: the frame has no hash

  [[nodiscard]] std::span<const uint8_t> input() const { return std::span(bytes).first(size); }
};

// A frame's bytes that are looked at: the headers in front of IPv6's extensions take 62, and ports
// behind more extensions than fit aren't found.
inline constexpr size_t kFlowStartBytes = 192;

// Of an Ethernet frame that begins with `start`, with up to two VLAN tags. `hash_types` are bits of
// kHashTypes. Fragments have no ports, since only the first of a datagram's would.
[[nodiscard]] FlowFields FlowFieldsOf(std::span<const uint8_t> start, uint32_t hash_types);

}  // namespace bothy::virtio
