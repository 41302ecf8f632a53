#include "net/user/outbound_frame.h"

#include <algorithm>

#include "net/ethernet.h"
#include "support/endian.h"

namespace bothy::net {
namespace {

// IPv4 (RFC 791, 3.1).
constexpr size_t kIpv4HeaderBytes = 20;
constexpr size_t kIpv4FragmentOffset = 6;
constexpr uint16_t kIpv4FragmentMask = 0x3FFF;  // more to come, and where this one belongs
constexpr size_t kIpv4ProtocolOffset = 9;
constexpr size_t kIpv4DestinationOffset = 16;
// IPv6 (RFC 8200, 3).
constexpr size_t kIpv6HeaderBytes = 40;
constexpr size_t kIpv6NextHeaderOffset = 6;
constexpr size_t kIpv6DestinationOffset = 24;
// Protocols.
constexpr uint8_t kIcmp = 1;
constexpr uint8_t kIcmp6 = 58;
// TCP (RFC 9293, 3.1).
constexpr size_t kTcpFlagsOffset = 13;
constexpr uint8_t kTcpSyn = 0x02;
constexpr uint8_t kTcpAck = 0x10;
// UDP and DHCP (RFC 2131, 4.1).
constexpr size_t kUdpDestinationOffset = 2;
constexpr uint16_t kDhcpServerPort = 67;
// ICMPv6 (RFC 4443): those that are answered from afar; the rest is between neighbours.
constexpr uint8_t kIcmp6EchoRequest = 128;

bool MayBeginFlow(uint8_t protocol, std::span<const uint8_t> payload) {
  switch (protocol) {
    case kProtocolTcp:
      return payload.size() > kTcpFlagsOffset &&
             (payload[kTcpFlagsOffset] & (kTcpSyn | kTcpAck)) == kTcpSyn;
    case kProtocolUdp:
      return payload.size() < kUdpDestinationOffset + 2 ||
             LoadBe<uint16_t>(payload.data() + kUdpDestinationOffset) != kDhcpServerPort;
    case kIcmp:
      return true;
    case kIcmp6:
      return !payload.empty() && payload[0] == kIcmp6EchoRequest;
    default:
      return false;
  }
}

void LookAtPorts(uint8_t protocol, std::span<const uint8_t> payload, OutboundFrame& frame) {
  frame.udp = protocol == kProtocolUdp;
  frame.tcp = protocol == kProtocolTcp;
  if ((!frame.udp && !frame.tcp) || frame.fragment || payload.size() < 4) return;
  frame.source_port = LoadBe<uint16_t>(payload.data());
  frame.destination_port = LoadBe<uint16_t>(payload.data() + 2);
}

OutboundFrame LookAtIpv4(std::span<const uint8_t> packet) {
  OutboundFrame frame;
  if (packet.size() < kIpv4HeaderBytes) return frame;
  frame.family = OutboundFrame::Family::kIpv4;
  frame.destination4 = LoadBe<uint32_t>(packet.data() + kIpv4DestinationOffset);
  const uint32_t first = frame.destination4 >> 24;
  frame.to_host_loopback = first == 127 || first == 0;
  frame.fragment = (LoadBe<uint16_t>(packet.data() + kIpv4FragmentOffset) & kIpv4FragmentMask) != 0;
  const size_t header = size_t{4} * (packet[0] & 0xFU);
  const std::span<const uint8_t> payload = packet.subspan(std::min(header, packet.size()));
  // What a fragment's whole begins isn't known yet.
  frame.may_begin_flow = frame.fragment || MayBeginFlow(packet[kIpv4ProtocolOffset], payload);
  LookAtPorts(packet[kIpv4ProtocolOffset], payload, frame);
  return frame;
}

OutboundFrame LookAtIpv6(std::span<const uint8_t> packet) {
  OutboundFrame frame;
  if (packet.size() < kIpv6HeaderBytes) return frame;
  frame.family = OutboundFrame::Family::kIpv6;
  std::array<uint8_t, 16>& destination = frame.destination6;
  std::copy_n(packet.begin() + kIpv6DestinationOffset, destination.size(), destination.begin());
  // ::/96 holds ::, ::1 and IPv4-compatible addresses; ::ffff:0:0/96 IPv4-mapped ones (RFC 4291,
  // 2.5), which a socket takes for IPv4.
  const bool zeros =
      std::all_of(destination.begin(), destination.begin() + 10, [](uint8_t b) { return b == 0; });
  const auto middle = LoadBe<uint16_t>(destination.data() + 10);
  frame.to_host_loopback = zeros && (middle == 0 || middle == 0xFFFF);
  const std::span<const uint8_t> payload = packet.subspan(kIpv6HeaderBytes);
  frame.may_begin_flow = MayBeginFlow(packet[kIpv6NextHeaderOffset], payload);
  LookAtPorts(packet[kIpv6NextHeaderOffset], payload, frame);
  return frame;
}

}  // namespace

OutboundFrame LookAt(std::span<const uint8_t> frame) {
  if (frame.size() < kEthernetHeaderBytes) return {};
  const std::span<const uint8_t> packet = frame.subspan(kEthernetHeaderBytes);
  switch (LoadBe<uint16_t>(frame.data() + kEthernetTypeOffset)) {
    case kEthernetIpv4:
      return LookAtIpv4(packet);
    case kEthernetIpv6:
      return LookAtIpv6(packet);
    default:
      return {};
  }
}

}  // namespace bothy::net
