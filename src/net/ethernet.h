// Numbers of Ethernet (IEEE 802.3) and of the protocols that backends and cards look at.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bothy::net {

inline constexpr size_t kEthernetHeaderBytes = 14;  // two addresses and a type
inline constexpr size_t kEthernetTypeOffset = 12;
inline constexpr size_t kVlanTagBytes = 4;
inline constexpr uint16_t kEthernetIpv4 = 0x0800;
inline constexpr uint16_t kEthernetIpv6 = 0x86DD;
inline constexpr uint16_t kEthernetVlan = 0x8100;
inline constexpr uint16_t kEthernetServiceVlan = 0x88A8;
inline constexpr uint8_t kProtocolTcp = 6;
inline constexpr uint8_t kProtocolUdp = 17;

}  // namespace bothy::net
