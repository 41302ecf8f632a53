// What a virtio-net driver and device exchange (virtio 1.2, 5.1): offsets in bytes, all
// little-endian.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bothy::virtio::net_wire {

// Queues (5.1.2): receive and transmit queues in turn, then the control queue.
[[nodiscard]] constexpr uint16_t ReceiveIndex(uint16_t pair) {
  return static_cast<uint16_t>(2 * pair);
}
[[nodiscard]] constexpr uint16_t TransmitIndex(uint16_t pair) {
  return static_cast<uint16_t>(2 * pair + 1);
}

// Feature bits (5.1.3).
inline constexpr uint64_t kFeatureChecksum = uint64_t{1} << 0;
inline constexpr uint64_t kFeatureGuestChecksum = uint64_t{1} << 1;
inline constexpr uint64_t kFeatureControlGuestOffloads = uint64_t{1} << 2;
inline constexpr uint64_t kFeatureMtu = uint64_t{1} << 3;
inline constexpr uint64_t kFeatureMac = uint64_t{1} << 5;
inline constexpr uint64_t kFeatureGuestTso4 = uint64_t{1} << 7;
inline constexpr uint64_t kFeatureGuestTso6 = uint64_t{1} << 8;
inline constexpr uint64_t kFeatureGuestEcn = uint64_t{1} << 9;
inline constexpr uint64_t kFeatureHostTso4 = uint64_t{1} << 11;
inline constexpr uint64_t kFeatureHostTso6 = uint64_t{1} << 12;
inline constexpr uint64_t kFeatureHostEcn = uint64_t{1} << 13;
inline constexpr uint64_t kFeatureMergeableBuffers = uint64_t{1} << 15;
inline constexpr uint64_t kFeatureStatus = uint64_t{1} << 16;
inline constexpr uint64_t kFeatureControlQueue = uint64_t{1} << 17;
inline constexpr uint64_t kFeatureControlReceive = uint64_t{1} << 18;
inline constexpr uint64_t kFeatureControlVlan = uint64_t{1} << 19;
inline constexpr uint64_t kFeatureControlReceiveExtra = uint64_t{1} << 20;
inline constexpr uint64_t kFeatureGuestAnnounce = uint64_t{1} << 21;
inline constexpr uint64_t kFeatureMultiqueue = uint64_t{1} << 22;
inline constexpr uint64_t kFeatureControlMac = uint64_t{1} << 23;
inline constexpr uint64_t kFeatureGuestUso4 = uint64_t{1} << 54;
inline constexpr uint64_t kFeatureGuestUso6 = uint64_t{1} << 55;
inline constexpr uint64_t kFeatureHostUso = uint64_t{1} << 56;
inline constexpr uint64_t kFeatureRss = uint64_t{1} << 60;

// Configuration (5.1.4).
inline constexpr size_t kConfigBytes = 24;
inline constexpr size_t kConfigMac = 0;
inline constexpr size_t kConfigStatus = 6;
inline constexpr size_t kConfigMaxPairs = 8;
inline constexpr size_t kConfigMtu = 10;
inline constexpr size_t kConfigMostKeyBytes = 17;  // rss_max_key_size
inline constexpr size_t kConfigMostTableEntries = 18;
inline constexpr size_t kConfigHashTypes = 20;
inline constexpr uint16_t kStatusLinkUp = 1;
inline constexpr uint16_t kStatusAnnounce = 2;

// The header in front of a frame (5.1.6), with num_buffers as always since version 1.
inline constexpr size_t kHeaderBytes = 12;
inline constexpr size_t kHeaderFlags = 0;
inline constexpr size_t kHeaderGsoType = 1;
inline constexpr size_t kHeaderLength = 2;  // hdr_len
inline constexpr size_t kHeaderGsoSize = 4;
inline constexpr size_t kHeaderChecksumStart = 6;
inline constexpr size_t kHeaderChecksumOffset = 8;
inline constexpr size_t kHeaderBuffers = 10;
inline constexpr uint8_t kNeedsChecksum = 1;
inline constexpr uint8_t kGsoNone = 0;
inline constexpr uint8_t kGsoTcp4 = 1;
inline constexpr uint8_t kGsoTcp6 = 4;
inline constexpr uint8_t kGsoUdp = 5;  // VIRTIO_NET_HDR_GSO_UDP_L4
inline constexpr uint8_t kGsoEcn = 0x80;

// Control commands (5.1.6.5): class, command, data; the answer is one byte.
inline constexpr size_t kControlHeaderBytes = 2;
inline constexpr uint8_t kControlOk = 0;
inline constexpr uint8_t kControlError = 1;
inline constexpr uint8_t kClassReceive = 0;
inline constexpr uint8_t kReceivePromiscuous = 0;
inline constexpr uint8_t kReceiveAllMulticast = 1;
inline constexpr uint8_t kReceiveAllUnicast = 2;
inline constexpr uint8_t kReceiveNoMulticast = 3;
inline constexpr uint8_t kReceiveNoUnicast = 4;
inline constexpr uint8_t kReceiveNoBroadcast = 5;
inline constexpr uint8_t kClassMac = 1;
inline constexpr uint8_t kMacTableSet = 0;
inline constexpr uint8_t kMacAddressSet = 1;
inline constexpr uint8_t kClassVlan = 2;
inline constexpr uint8_t kVlanAdd = 0;
inline constexpr uint8_t kVlanDelete = 1;
inline constexpr uint8_t kClassAnnounce = 3;
inline constexpr uint8_t kAnnounceAcknowledge = 0;
inline constexpr uint8_t kClassMultiqueue = 4;
inline constexpr uint8_t kMultiqueuePairsSet = 0;
inline constexpr uint8_t kMultiqueueRss = 1;
inline constexpr uint8_t kClassGuestOffloads = 5;
inline constexpr uint8_t kGuestOffloadsSet = 0;

// Hash types (5.1.6.4.3.1), without those that look into IPv6's extensions.
inline constexpr uint32_t kHashIpv4 = 1 << 0;
inline constexpr uint32_t kHashTcp4 = 1 << 1;
inline constexpr uint32_t kHashUdp4 = 1 << 2;
inline constexpr uint32_t kHashIpv6 = 1 << 3;
inline constexpr uint32_t kHashTcp6 = 1 << 4;
inline constexpr uint32_t kHashUdp6 = 1 << 5;
inline constexpr uint32_t kHashTypes = 0x3F;  // that the device knows

}  // namespace bothy::virtio::net_wire
