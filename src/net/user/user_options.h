// What user-mode networking can be asked for, and the addresses that follow from it.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <string>
#include <vector>

#include "support/status.h"

namespace bothy::net {

// A port of the host whose connections (datagrams) go to the guest.
struct Forward {
  enum class Protocol : uint8_t { kTcp, kUdp };
  Protocol protocol = Protocol::kTcp;
  std::string host_address;  // IPv4; empty: all of the host's
  uint16_t host_port = 0;
  uint16_t guest_port = 0;

  friend bool operator==(const Forward&, const Forward&) = default;
};

struct UserOptions {
  // The guest's IPv4 network, /8 to /29: "10.0.2.0/24"; empty: that one. Its second address is the
  // gateway's, the third the name server's; DHCP gives the guest the 15th, or, of a network smaller
  // than /27, the fourth.
  std::string cidr;
  std::vector<Forward> forwards;
  // Whether the gateway's address leads to the host's own loopback interface.
  bool host_loopback = false;
  bool ipv6 = true;
  // Bytes. Large, since every frame costs the same: it takes a driver that knows VIRTIO_NET_F_MTU
  // to make use of it, and TCP finds out by itself what others can have. At least 576.
  uint16_t mtu = 65'520;

  friend bool operator==(const UserOptions&, const UserOptions&) = default;
};

struct UserAddresses {
  in_addr network{};
  in_addr mask{};
  in_addr gateway{};
  in_addr name_server{};
  in_addr guest{};  // the one that DHCP gives
  in6_addr prefix{};
  uint8_t prefix_length = 64;
  in6_addr gateway6{};
  in6_addr name_server6{};
  std::string cidr;  // of `network` and `mask`
};

// InvalidArgument when `cidr` isn't a network that will do.
absl::StatusOr<UserAddresses> ChooseAddresses(const std::string& cidr);

}  // namespace bothy::net
