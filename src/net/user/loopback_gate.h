// LoopbackGate: lets a guest answer datagrams that came from the host's loopback interface over a
// forwarded port, and nothing else there.
//
// libslirp can keep a guest from the host's loopback addresses, but then it keeps answers back,
// too. So where UDP ports are forwarded it isn't asked to, and this decides instead, knowing who
// has asked.
//
// Loop thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <unordered_set>

#include "net/user/outbound_frame.h"
#include "net/user/user_options.h"

namespace bothy::net {

class LoopbackGate {
 public:
  // Peers that are remembered; the one that was first is forgotten first.
  static constexpr size_t kMostPeers = 4096;

  explicit LoopbackGate(const UserAddresses& addresses) : addresses_(addresses) {}

  // A frame goes to the guest.
  void Note(std::span<const uint8_t> frame);
  // Whether what the guest sends may go on.
  [[nodiscard]] bool Passes(const OutboundFrame& frame) const;

 private:
  [[nodiscard]] bool IsForHost(const OutboundFrame& frame) const;
  static uint32_t Key(uint16_t peer_port, uint16_t guest_port) {
    return uint32_t{peer_port} << 16 | guest_port;
  }

  const UserAddresses addresses_;
  std::unordered_set<uint32_t> peers_;
  std::deque<uint32_t> in_order_;
};

}  // namespace bothy::net
