#include "cmd/bothyctl/nic_flag.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "support/guid.h"

namespace bothy::bothyctl {
namespace {

using ::vmservice::NICConfig;

absl::Status Malformed(std::string_view text, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("\"", std::string(text), "\": ", why));
}

bool ParsePort(std::string_view digits, uint32_t* port) {
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), *port);
  return error == std::errc() && end == digits.data() + digits.size();
}

// `value` is empty where there is no "=".
absl::Status Apply(std::string_view text, const std::string& key, const std::string& value,
                   NICConfig* nic) {
  const bool has_backend =
      nic->backend_case() != NICConfig::BACKEND_NOT_SET || !nic->switch_id().empty();
  const bool is_backend = key == "user" || key == "tap" || key == "switch";
  if (is_backend && has_backend) return Malformed(text, "a card has one of user, tap and switch");
  if (key == "user") {
    nic->mutable_user();
  } else if (value.empty()) {
    return Malformed(text, absl::StrCat("write ", key, "=…"));
  } else if (key == "tap") {
    nic->mutable_tap()->set_name(value);
  } else if (key == "switch") {
    nic->set_switch_id(value);
  } else if (key == "port") {
    nic->set_port_id(value);
  } else if (key == "id") {
    nic->set_nic_id(value);
  } else if (key == "mac") {
    nic->set_mac_address(PlainMac(value));
  } else if (key == "name") {
    nic->set_nic_name(value);
  } else if (key == "network" || key == "forward") {
    if (!nic->has_user())
      return Malformed(text, absl::StrCat(key, " is for user, and stands behind it"));
    if (key == "forward") return AddForward(value, nic->mutable_user());
    nic->mutable_user()->set_cidr(value);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status AddForward(std::string_view text, ::vmservice::UserBackend* user) {
  std::string_view rest = text;
  ::vmservice::IpProtocol protocol = ::vmservice::TCP;
  if (rest.starts_with("tcp:") || rest.starts_with("udp:")) {
    if (rest.front() == 'u') protocol = ::vmservice::UDP;
    rest.remove_prefix(4);
  }
  const size_t colon = rest.find(':');
  uint32_t host = 0;
  uint32_t guest = 0;
  if (colon == std::string_view::npos || !ParsePort(rest.substr(0, colon), &host) ||
      !ParsePort(rest.substr(colon + 1), &guest)) {
    return Malformed(text, "write [tcp:|udp:]HOST_PORT:GUEST_PORT, such as tcp:2222:22");
  }
  ::vmservice::PortConfig* const port = user->add_ports();
  port->set_host_port(host);
  port->set_guest_port(guest);
  port->set_protocol(protocol);
  return absl::OkStatus();
}

std::string PlainMac(std::string_view text) {
  std::string mac(text);
  std::replace(mac.begin(), mac.end(), ':', '-');
  return mac;
}

absl::StatusOr<NicFlag> ParseNicFlag(std::string_view text) {
  static constexpr std::string_view kKeys[] = {"user", "tap",  "switch",  "port",   "id",
                                               "mac",  "name", "network", "forward"};
  NicFlag flag;
  std::set<std::string> given;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view word = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(word.size() + 1, rest.size()));
    const size_t equals = word.find('=');
    const std::string key(word.substr(0, equals));
    if (std::find(std::begin(kKeys), std::end(kKeys), key) == std::end(kKeys) ||
        (key == "user" && equals != std::string_view::npos)) {
      return Malformed(text, absl::StrCat("\"", std::string(word),
                                          "\" is none of user, tap=, switch=, port=, id=, mac=, "
                                          "name=, network=, forward="));
    }
    if (key != "forward" && !given.insert(key).second) {
      return Malformed(text, absl::StrCat("says ", key, " twice"));
    }
    const std::string value(equals == std::string_view::npos ? "" : word.substr(equals + 1));
    RETURN_IF_ERROR(Apply(text, key, value, &flag.nic));
  }
  if (flag.nic.backend_case() == NICConfig::BACKEND_NOT_SET && flag.nic.switch_id().empty()) {
    return Malformed(text, "says neither user nor tap=NAME nor switch=NAME");
  }
  return flag;
}

absl::Status AddNics(const std::vector<NicFlag>& flags, ::vmservice::VMConfig* config) {
  if (flags.empty()) return absl::OkStatus();
  std::set<std::string> ids;
  for (const NicFlag& flag : flags) {
    const std::string id = absl::AsciiStrToLower(flag.nic.nic_id());
    if (!id.empty() && !ids.insert(id).second) {
      return absl::InvalidArgumentError(absl::StrCat("--nic: two cards have the id ", id));
    }
  }
  auto* const nics = config->mutable_devices_config()->mutable_nic_config();
  for (int old = nics->size() - 1; old >= 0; --old) {
    if (ids.count(absl::AsciiStrToLower(nics->Get(old).nic_id())) != 0) {
      nics->DeleteSubrange(old, 1);
    }
  }
  for (const NicFlag& flag : flags) {
    NICConfig& nic = *nics->Add();
    nic = flag.nic;
    if (nic.nic_id().empty()) nic.set_nic_id(Guid::Random().ToString());
  }
  return absl::OkStatus();
}

}  // namespace bothy::bothyctl
