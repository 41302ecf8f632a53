#include "virtio/net/receive_filter.h"

#include <algorithm>

#include "support/endian.h"
#include "virtio/net/wire.h"

namespace bothy::virtio {
namespace {

constexpr size_t kMacBytes = 6;
constexpr size_t kEtherTypeAt = 12;
constexpr size_t kTagAt = 14;
constexpr uint16_t kVlanEtherType = 0x8100;
constexpr uint16_t kVlanIdMask = 0x0FFF;
constexpr MacBytes kBroadcast = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};

MacBytes AddressAt(std::span<const uint8_t> bytes) {
  MacBytes address{};
  std::copy_n(bytes.begin(), kMacBytes, address.begin());
  return address;
}

bool Contains(const std::vector<MacBytes>& table, const MacBytes& address) {
  return std::find(table.begin(), table.end(), address) != table.end();
}

// A table of 5.1.6.5.2: a number of addresses, and they. Takes it off the front of `data`.
bool TakeTable(std::span<const uint8_t>& data, std::vector<MacBytes>& table, bool& overflow) {
  if (data.size() < sizeof(uint32_t)) return false;
  const uint64_t count = LoadLe<uint32_t>(data.data());
  data = data.subspan(sizeof(uint32_t));
  if (count * kMacBytes > data.size()) return false;
  table.clear();
  overflow = count > ReceiveFilter::kMostAddresses;
  if (!overflow) {
    for (uint64_t i = 0; i < count; ++i) table.push_back(AddressAt(data.subspan(i * kMacBytes)));
  }
  data = data.subspan(count * kMacBytes);
  return true;
}

}  // namespace

bool ReceiveFilter::SetMode(uint8_t command, std::span<const uint8_t> data) {
  if (data.size() != 1) return false;
  const bool on = data[0] != 0;
  switch (command) {
    case net_wire::kReceivePromiscuous:
      promiscuous_ = on;
      return true;
    case net_wire::kReceiveAllMulticast:
      all_multicast_ = on;
      return true;
    case net_wire::kReceiveAllUnicast:
      all_unicast_ = on;
      return true;
    case net_wire::kReceiveNoMulticast:
      no_multicast_ = on;
      return true;
    case net_wire::kReceiveNoUnicast:
      no_unicast_ = on;
      return true;
    case net_wire::kReceiveNoBroadcast:
      no_broadcast_ = on;
      return true;
    default:
      return false;
  }
}

bool ReceiveFilter::SetTables(std::span<const uint8_t> data) {
  std::vector<MacBytes> unicast;
  std::vector<MacBytes> multicast;
  bool unicast_overflow = false;
  bool multicast_overflow = false;
  if (!TakeTable(data, unicast, unicast_overflow) ||
      !TakeTable(data, multicast, multicast_overflow) || !data.empty()) {
    return false;
  }
  unicast_ = std::move(unicast);
  multicast_ = std::move(multicast);
  unicast_overflow_ = unicast_overflow;
  multicast_overflow_ = multicast_overflow;
  return true;
}

bool ReceiveFilter::SetOwnAddress(std::span<const uint8_t> data) {
  // A NIC's own is one of unicast (5.1.6.5.2 has no word on others).
  if (data.size() != kMacBytes || (data[0] & 1) != 0) return false;
  own_ = AddressAt(data);
  return true;
}

bool ReceiveFilter::ChangeVlan(uint8_t command, std::span<const uint8_t> data) {
  if (data.size() != sizeof(uint16_t)) return false;
  const auto vlan = LoadLe<uint16_t>(data.data());
  if (vlan >= vlans_.size()) return false;
  if (command != net_wire::kVlanAdd && command != net_wire::kVlanDelete) return false;
  vlans_.set(vlan, command == net_wire::kVlanAdd);
  return true;
}

bool ReceiveFilter::PassesAddress(std::span<const uint8_t> destination) const {
  const MacBytes address = AddressAt(destination);
  if (address == kBroadcast) return !no_broadcast_;
  if ((address[0] & 1) != 0) {
    if (no_multicast_) return false;
    return all_multicast_ || multicast_overflow_ || Contains(multicast_, address);
  }
  if (no_unicast_) return false;
  return all_unicast_ || unicast_overflow_ || address == own_ || Contains(unicast_, address);
}

bool ReceiveFilter::Passes(std::span<const uint8_t> start) const {
  // What is shorter than an Ethernet header is nobody's.
  if (start.size() < kTagAt) return false;
  // 5.1.6.5.1.1: all frames, tagged ones included.
  if (promiscuous_) return true;
  if (filters_vlans_ && start.size() >= kBytesNeeded &&
      LoadBe<uint16_t>(&start[kEtherTypeAt]) == kVlanEtherType &&
      !vlans_.test(LoadBe<uint16_t>(&start[kTagAt]) & kVlanIdMask)) {
    return false;
  }
  return PassesAddress(start.first(kMacBytes));
}

}  // namespace bothy::virtio
