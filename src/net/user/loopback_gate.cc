#include "net/user/loopback_gate.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>

#include "net/ethernet.h"
#include "support/endian.h"

namespace bothy::net {
namespace {

constexpr uint32_t kBroadcast = 0xFFFFFFFF;
constexpr uint16_t kDhcpServerPort = 67;
// ff02::1 (RFC 4291, 2.7.1).
constexpr std::array<uint8_t, 16> kAllNodes = {0xFF, 0x02, 0, 0, 0, 0, 0, 0,
                                               0,    0,    0, 0, 0, 0, 0, 1};
// IPv4 (RFC 791, 3.1).
constexpr size_t kSourceOffset = 12;
constexpr size_t kHeaderBytesWithoutOptions = 20;

}  // namespace

void LoopbackGate::Note(std::span<const uint8_t> frame) {
  const OutboundFrame inbound = LookAt(frame);
  if (inbound.family != OutboundFrame::Family::kIpv4 || !inbound.udp) return;
  if (frame.size() < kEthernetHeaderBytes + kHeaderBytesWithoutOptions) return;
  const auto source = LoadBe<uint32_t>(frame.data() + kEthernetHeaderBytes + kSourceOffset);
  if (source != ntohl(addresses_.gateway.s_addr)) return;
  const uint32_t key = Key(inbound.source_port, inbound.destination_port);
  if (!peers_.insert(key).second) return;
  in_order_.push_back(key);
  if (in_order_.size() <= kMostPeers) return;
  peers_.erase(in_order_.front());
  in_order_.pop_front();
}

bool LoopbackGate::IsForHost(const OutboundFrame& frame) const {
  // What libslirp takes for its host.
  switch (frame.family) {
    case OutboundFrame::Family::kIpv4:
      return frame.destination4 == ntohl(addresses_.gateway.s_addr) ||
             frame.destination4 == kBroadcast;
    case OutboundFrame::Family::kIpv6: {
      const uint8_t* prefix = addresses_.prefix.s6_addr;
      const size_t bytes = addresses_.prefix_length / 8;
      return (std::equal(prefix, prefix + bytes, frame.destination6.begin()) &&
              !std::equal(frame.destination6.begin(), frame.destination6.end(),
                          addresses_.name_server6.s6_addr)) ||
             frame.destination6 == kAllNodes;
    }
    default:
      return false;
  }
}

bool LoopbackGate::Passes(const OutboundFrame& frame) const {
  if (!frame.udp && !frame.tcp) return true;
  if (!IsForHost(frame)) return true;
  if (frame.fragment) return false;
  if (frame.tcp) return !frame.may_begin_flow;
  return frame.destination_port == kDhcpServerPort ||
         (frame.family == OutboundFrame::Family::kIpv4 &&
          peers_.contains(Key(frame.destination_port, frame.source_port)));
}

}  // namespace bothy::net
