// What the guest's frames want, as far as the host has a say in it before its sockets are used.
//
// Frames are the guest's: anything may be in them.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace bothy::net {

struct OutboundFrame {
  // To one of those that the host's sockets take for the host itself: 127.0.0.0/8, 0.0.0.0/8, ::1,
  // ::, and IPv4 in IPv6.
  bool to_host_loopback = false;
  bool fragment = false;  // of an IPv4 packet
  // It may begin a flow, for which the host needs a socket.
  bool may_begin_flow = false;

  enum class Family : uint8_t { kOther, kIpv4, kIpv6 };
  Family family = Family::kOther;
  uint32_t destination4 = 0;               // kIpv4, in host byte order
  std::array<uint8_t, 16> destination6{};  // kIpv6
  bool udp = false;
  bool tcp = false;
  uint16_t source_port = 0;  // of UDP and TCP, unless it is a fragment
  uint16_t destination_port = 0;
};

// `frame` begins with the Ethernet header; what is too short is nothing of all that.
[[nodiscard]] OutboundFrame LookAt(std::span<const uint8_t> frame);

}  // namespace bothy::net
