// BackendConfig: where the frames of a NIC are to go, as plain values. What the host makes of it is
// OpenBackend's to say (open_backend.h).
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace bothy::net {

// A tap of the host, existing or to be made.
struct TapConfig {
  std::string name;
  bool operator==(const TapConfig&) const = default;
};

// A new port of a host bridge.
struct SwitchConfig {
  std::string switch_id;  // the bridge's name or alias
  std::string port_id;    // the port's alias; empty: none
  bool operator==(const SwitchConfig&) const = default;
};

// A port of the host whose connections (datagrams) go to the guest.
struct PortForward {
  enum class Protocol : uint8_t { kTcp, kUdp };
  uint16_t host_port = 0;   // not 0
  uint16_t guest_port = 0;  // not 0
  Protocol protocol = Protocol::kTcp;
  bool operator==(const PortForward&) const = default;
};

// NAT in user space.
struct UserConfig {
  std::string cidr;  // the guest's network, "10.0.2.0/24"; empty: that one
  std::vector<PortForward> ports;
  bool operator==(const UserConfig&) const = default;
};

using BackendConfig = std::variant<TapConfig, SwitchConfig, UserConfig>;

}  // namespace bothy::net
