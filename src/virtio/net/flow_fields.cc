#include "virtio/net/flow_fields.h"

#include <algorithm>

#include "net/ethernet.h"
#include "support/endian.h"
#include "virtio/net/wire.h"

namespace bothy::virtio {
namespace {

using Bytes = std::span<const uint8_t>;

// IPv4 (RFC 791).
constexpr size_t kIpv4Bytes = 20;
constexpr size_t kIpv4Fragment = 6;
constexpr uint16_t kIpv4FragmentMask = 0x3FFF;  // more to come, and where this one belongs
constexpr size_t kIpv4Protocol = 9;
constexpr size_t kIpv4Addresses = 12;
constexpr size_t kIpv4AddressesBytes = 8;
// IPv6 (RFC 8200), its extensions and the authentication header (RFC 4302).
constexpr size_t kIpv6Bytes = 40;
constexpr size_t kIpv6NextHeader = 6;
constexpr size_t kIpv6Addresses = 8;
constexpr size_t kIpv6AddressesBytes = 32;
constexpr uint8_t kHopByHop = 0;
constexpr uint8_t kRouting = 43;
constexpr uint8_t kFragment = 44;
constexpr uint8_t kAuthentication = 51;
constexpr uint8_t kDestinationOptions = 60;
constexpr size_t kExtensionUnit = 8;
constexpr size_t kFragmentOffset = 2;
constexpr uint16_t kFragmentMask = 0xFFF9;  // where it belongs, and more to come
// Source and destination, the same in TCP and UDP.
constexpr size_t kPortsBytes = 4;
// Of a packet whose ports aren't to be found: reserved (IANA).
constexpr uint8_t kNoProtocol = 255;

struct Transport {
  uint8_t protocol = kNoProtocol;
  Bytes bytes;
};
// The hash types of one version of IP.
struct Types {
  uint32_t addresses;
  uint32_t tcp;
  uint32_t udp;
};

FlowFields Fields(Bytes addresses, const Transport& transport, const Types& types,
                  uint32_t wanted) {
  const bool has_ports = transport.bytes.size() >= kPortsBytes;
  const bool tcp = transport.protocol == net::kProtocolTcp && (wanted & types.tcp) != 0;
  const bool udp = transport.protocol == net::kProtocolUdp && (wanted & types.udp) != 0;
  const bool with_ports = has_ports && (tcp || udp);
  FlowFields fields;
  if (!with_ports && (wanted & types.addresses) == 0) return fields;
  auto end = std::copy(addresses.begin(), addresses.end(), fields.bytes.begin());
  if (with_ports) end = std::copy_n(transport.bytes.begin(), kPortsBytes, end);
  fields.size = static_cast<size_t>(end - fields.bytes.begin());
  return fields;
}

FlowFields OfIpv4(Bytes packet, uint32_t wanted) {
  if (packet.size() < kIpv4Bytes || packet[0] >> 4 != 4) return {};
  const size_t header_bytes = size_t{4} * (packet[0] & 0xF);
  if (header_bytes < kIpv4Bytes) return {};
  Transport transport;
  const bool fragment = (LoadBe<uint16_t>(&packet[kIpv4Fragment]) & kIpv4FragmentMask) != 0;
  if (!fragment && header_bytes <= packet.size()) {
    transport = {.protocol = packet[kIpv4Protocol], .bytes = packet.subspan(header_bytes)};
  }
  constexpr Types kTypes = {net_wire::kHashIpv4, net_wire::kHashTcp4, net_wire::kHashUdp4};
  return Fields(packet.subspan(kIpv4Addresses, kIpv4AddressesBytes), transport, kTypes, wanted);
}

// Behind the extensions of IPv6, as far as they are there.
Transport BehindExtensions(Bytes packet) {
  uint8_t next = packet[kIpv6NextHeader];
  packet = packet.subspan(kIpv6Bytes);
  for (;;) {
    size_t size = 0;
    switch (next) {
      case kHopByHop:
      case kRouting:
      case kDestinationOptions:
      case kFragment:
      case kAuthentication:
        if (packet.size() < kExtensionUnit) return {};
        if (next == kFragment) {
          if ((LoadBe<uint16_t>(&packet[kFragmentOffset]) & kFragmentMask) != 0) return {};
          size = kExtensionUnit;
        } else if (next == kAuthentication) {
          size = size_t{4} * (packet[1] + size_t{2});
        } else {
          size = kExtensionUnit * (packet[1] + size_t{1});
        }
        break;
      default:
        return {.protocol = next, .bytes = packet};
    }
    if (size > packet.size()) return {};
    next = packet[0];
    packet = packet.subspan(size);
  }
}

FlowFields OfIpv6(Bytes packet, uint32_t wanted) {
  if (packet.size() < kIpv6Bytes || packet[0] >> 4 != 6) return {};
  constexpr Types kTypes = {net_wire::kHashIpv6, net_wire::kHashTcp6, net_wire::kHashUdp6};
  return Fields(packet.subspan(kIpv6Addresses, kIpv6AddressesBytes), BehindExtensions(packet),
                kTypes, wanted);
}

}  // namespace

FlowFields FlowFieldsOf(std::span<const uint8_t> start, uint32_t hash_types) {
  size_t network = net::kEthernetHeaderBytes;
  if (start.size() < network) return {};
  auto type = LoadBe<uint16_t>(&start[net::kEthernetTypeOffset]);
  for (int tags = 0; tags < 2 && (type == net::kEthernetVlan || type == net::kEthernetServiceVlan);
       ++tags) {
    network += net::kVlanTagBytes;
    if (start.size() < network) return {};
    type = LoadBe<uint16_t>(&start[network - sizeof type]);
  }
  if (type == net::kEthernetIpv4) return OfIpv4(start.subspan(network), hash_types);
  if (type == net::kEthernetIpv6) return OfIpv6(start.subspan(network), hash_types);
  return {};
}

}  // namespace bothy::virtio
