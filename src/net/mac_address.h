// MacAddress: an Ethernet address, and the form that the contract writes it in.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "support/guid.h"
#include "support/status.h"

namespace bothy::net {

struct MacAddress {
  std::array<uint8_t, 6> bytes{};  // as they go over the wire

  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the comparison with 0 for one.
  auto operator<=>(const MacAddress&) const = default;
  [[nodiscard]] bool is_zero() const { return bytes == decltype(bytes){}; }
  [[nodiscard]] bool is_multicast() const { return (bytes[0] & 1) != 0; }  // broadcast, too

  // "12-34-56-78-9A-BC".
  [[nodiscard]] std::string ToString() const;
  // The same, in any case. InvalidArgument for anything else, and for an address that no NIC may
  // have: zero, multicast.
  static absl::StatusOr<MacAddress> ParseForNic(std::string_view text);
  // The address of a NIC that was given none: always the same for the same `nic_id`, locally
  // administered (IEEE 802, 8.2), unicast.
  static MacAddress ForNic(const Guid& nic_id);
};

}  // namespace bothy::net
