#include "net/mac_address.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace bothy::net {
namespace {

constexpr size_t kTextBytes = 17;

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// FNV-1a, 64 bits.
uint64_t Hash(const std::array<uint8_t, 16>& bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3;
  return hash;
}

}  // namespace

std::string MacAddress::ToString() const {
  return absl::StrFormat("%02X-%02X-%02X-%02X-%02X-%02X", bytes[0], bytes[1], bytes[2], bytes[3],
                         bytes[4], bytes[5]);
}

absl::StatusOr<MacAddress> MacAddress::ParseForNic(std::string_view text) {
  const auto malformed = [text] {
    return absl::InvalidArgumentError(
        absl::StrCat("'", std::string(text), "' isn't a MAC address, such as 12-34-56-78-9A-BC"));
  };
  if (text.size() != kTextBytes) return malformed();
  MacAddress address;
  for (size_t i = 0; i < address.bytes.size(); ++i) {
    const int high = HexDigit(text[3 * i]);
    const int low = HexDigit(text[3 * i + 1]);
    if (high < 0 || low < 0 || (i != 5 && text[3 * i + 2] != '-')) return malformed();
    address.bytes[i] = static_cast<uint8_t>(16 * high + low);
  }
  if (address.is_zero()) {
    return absl::InvalidArgumentError("the MAC address is zero, which no NIC may have");
  }
  if (address.is_multicast()) {
    return absl::InvalidArgumentError(
        absl::StrCat(address.ToString(),
                     " is a multicast address, which no NIC may have; the lowest bit of the first "
                     "byte must be 0"));
  }
  return address;
}

MacAddress MacAddress::ForNic(const Guid& nic_id) {
  const uint64_t hash = Hash(nic_id.bytes);
  MacAddress address;
  for (size_t i = 0; i < address.bytes.size(); ++i) {
    address.bytes[i] = static_cast<uint8_t>((hash ^ (hash >> 48)) >> (8 * i));
  }
  address.bytes[0] = static_cast<uint8_t>((address.bytes[0] & ~1U) | 2U);
  return address;
}

}  // namespace bothy::net
