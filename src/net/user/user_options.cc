#include "net/user/user_options.h"

#include <arpa/inet.h>

#include <charconv>
#include <optional>

#include "absl/strings/str_cat.h"

namespace bothy::net {
namespace {

constexpr const char* kDefaultNetwork = "10.0.2.0/24";
// A unique local prefix (RFC 4193); each guest has it for itself.
constexpr const char* kPrefix6 = "fdb0:7469:6e6e::";
constexpr int kShortestPrefix = 8;
constexpr int kLongestPrefix = 29;
// Networks as large as this have room for the address that guests of NAT commonly get.
constexpr int kLongestPrefixFor15 = 27;

// What no guest can have: 0.0.0.0/8, 127.0.0.0/8, and from 224.0.0.0 on (RFC 6890).
bool IsUnusable(uint32_t network, uint32_t mask) {
  const uint32_t last = network | ~mask;
  return (network >> 24) == 0 || ((network >> 24) <= 127 && (last >> 24) >= 127) ||
         (last >> 24) >= 224;
}

std::string Text(uint32_t address) {
  const in_addr in{htonl(address)};
  char text[INET_ADDRSTRLEN] = {};
  (void)::inet_ntop(AF_INET, &in, text, sizeof text);
  return text;
}

in6_addr InPrefix(uint8_t last) {
  in6_addr address{};
  (void)::inet_pton(AF_INET6, kPrefix6, &address);
  address.s6_addr[15] = last;
  return address;
}

}  // namespace

absl::StatusOr<UserAddresses> ChooseAddresses(const std::string& cidr) {
  const std::string text = cidr.empty() ? kDefaultNetwork : cidr;
  const auto invalid = [&text](const std::string& why) {
    return absl::InvalidArgumentError(absl::StrCat("network '", text, "': ", why));
  };
  const size_t slash = text.find('/');
  in_addr parsed{};
  int prefix = 0;
  const bool has_prefix = slash != std::string::npos;
  const char* end = text.data() + text.size();
  const auto number = has_prefix ? std::from_chars(text.data() + slash + 1, end, prefix)
                                 : std::from_chars_result{end, std::errc::invalid_argument};
  if (number.ec != std::errc() || number.ptr != end || text.find('\0') != std::string::npos ||
      ::inet_pton(AF_INET, text.substr(0, slash).c_str(), &parsed) != 1) {
    return invalid(absl::StrCat("not an IPv4 network, such as ", kDefaultNetwork));
  }
  if (prefix < kShortestPrefix || prefix > kLongestPrefix) {
    return invalid(absl::StrCat("prefix length ", prefix, " is out of range ", kShortestPrefix,
                                "..", kLongestPrefix));
  }
  const uint32_t mask = ~uint32_t{0} << (32 - prefix);
  const uint32_t network = ntohl(parsed.s_addr);
  if ((network & ~mask) != 0) {
    return invalid(absl::StrCat("has bits beyond its prefix; the network is ", Text(network & mask),
                                "/", prefix));
  }
  if (IsUnusable(network, mask)) return invalid("not a network that hosts can have");
  UserAddresses addresses;
  addresses.network = parsed;
  addresses.mask.s_addr = htonl(mask);
  addresses.gateway.s_addr = htonl(network + 2);
  addresses.name_server.s_addr = htonl(network + 3);
  addresses.guest.s_addr = htonl(network + (prefix <= kLongestPrefixFor15 ? 15 : 4));
  addresses.prefix = InPrefix(0);
  addresses.gateway6 = InPrefix(2);
  addresses.name_server6 = InPrefix(3);
  addresses.cidr = absl::StrCat(Text(network), "/", prefix);
  return addresses;
}

}  // namespace bothy::net
