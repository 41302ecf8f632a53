// ReceiveFilter: which frames a NIC's driver wants (virtio 1.2, 5.1.6.5.1 to 5.1.6.5.3).
//
// Promiscuous until the driver says otherwise, as after power-on. The tables are bounded: of a
// table that is too large, all addresses of that kind pass. What drivers are told of filters allows
// that ("best effort").
//
// Plain state; one thread.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <span>
#include <vector>

namespace bothy::virtio {

using MacBytes = std::array<uint8_t, 6>;

class ReceiveFilter {
 public:
  static constexpr size_t kMostAddresses = 64;  // in each of the two tables
  // A frame's bytes that Passes looks at: the addresses, and a VLAN tag.
  static constexpr size_t kBytesNeeded = 16;

  explicit ReceiveFilter(const MacBytes& own) : own_(own) {}

  // Commands of the classes RX, MAC and VLAN. False: no such command, or not such data.
  bool SetMode(uint8_t command, std::span<const uint8_t> data);
  bool SetTables(std::span<const uint8_t> data);
  bool SetOwnAddress(std::span<const uint8_t> data);
  bool ChangeVlan(uint8_t command, std::span<const uint8_t> data);
  // The driver has said that it filters by VLAN: none pass until they are added.
  void FilterVlans(bool on) { filters_vlans_ = on; }

  // `start`: the first bytes of a frame, of those that there are up to kBytesNeeded.
  [[nodiscard]] bool Passes(std::span<const uint8_t> start) const;
  // Whether every frame does that is one.
  [[nodiscard]] bool passes_all() const { return promiscuous_; }

  [[nodiscard]] const MacBytes& own_address() const { return own_; }
  [[nodiscard]] bool promiscuous() const { return promiscuous_; }
  [[nodiscard]] bool all_multicast() const { return all_multicast_; }
  [[nodiscard]] size_t unicast_addresses() const { return unicast_.size(); }
  [[nodiscard]] size_t multicast_addresses() const { return multicast_.size(); }
  [[nodiscard]] size_t vlans() const { return vlans_.count(); }

 private:
  [[nodiscard]] bool PassesAddress(std::span<const uint8_t> destination) const;

  MacBytes own_;
  bool promiscuous_ = true;
  bool all_multicast_ = false;
  bool all_unicast_ = false;
  bool no_multicast_ = false;
  bool no_unicast_ = false;
  bool no_broadcast_ = false;
  bool unicast_overflow_ = false;
  bool multicast_overflow_ = false;
  std::vector<MacBytes> unicast_;
  std::vector<MacBytes> multicast_;
  bool filters_vlans_ = false;
  std::bitset<4096> vlans_;
};

}  // namespace bothy::virtio
