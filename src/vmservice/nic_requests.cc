#include "vmservice/nic_requests.h"

#include <net/if.h>

#include <charconv>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "vmservice/field_checks.h"

namespace bothy::vmservice {
namespace {

using machine::NicConfig;
using machine::NicTuning;

// What the host allows for an alias (IFALIASZ less its NUL).
constexpr size_t kMaxAliasBytes = 255;
constexpr size_t kMaxNameBytes = 128;

absl::Status CheckText(const std::string& path, const std::string& value, size_t limit) {
  if (value.size() > limit) {
    return Invalid(path, absl::StrCat(value.size(), " bytes are more than ", limit));
  }
  if (value.find('\0') != std::string::npos) return Invalid(path, "contains a NUL byte");
  return absl::OkStatus();
}

// What Linux takes for the name of a network device.
absl::Status CheckDeviceName(const std::string& path, const std::string& name) {
  if (name.empty()) return Invalid(path, "is empty; name a tap of the host");
  if (name.size() >= IFNAMSIZ) {
    return Invalid(path, absl::StrCat("\"", name, "\" is longer than ", IFNAMSIZ - 1, " bytes"));
  }
  constexpr std::string_view kNever("/: \t\n\v\f\r%\0", 10);
  if (name == "." || name == ".." || name.find_first_of(kNever) != std::string::npos) {
    return Invalid(path, "isn't the name of a network device");
  }
  return absl::OkStatus();
}

absl::StatusOr<net::UserOptions> TranslateUser(const ::vmservice::UserBackend& user,
                                               const std::string& path) {
  net::UserOptions options;
  options.cidr = user.cidr();
  RETURN_IF_ERROR(WithContext(net::ChooseAddresses(options.cidr).status(), path + ".cidr"));
  std::set<std::pair<int, uint32_t>> taken;
  for (int i = 0; i < user.ports_size(); ++i) {
    const ::vmservice::PortConfig& port = user.ports(i);
    const std::string port_path = absl::StrCat(path, ".ports[", i, "]");
    RETURN_IF_ERROR(CheckRange(port_path + ".host_port", port.host_port(), 1, UINT16_MAX));
    RETURN_IF_ERROR(CheckRange(port_path + ".guest_port", port.guest_port(), 1, UINT16_MAX));
    net::Forward forward;
    switch (port.protocol()) {
      case ::vmservice::TCP:
        forward.protocol = net::Forward::Protocol::kTcp;
        break;
      case ::vmservice::UDP:
        forward.protocol = net::Forward::Protocol::kUdp;
        break;
      default:
        return Invalid(port_path + ".protocol",
                       absl::StrCat(static_cast<int>(port.protocol()), " is no IpProtocol"));
    }
    if (!taken.emplace(port.protocol(), port.host_port()).second) {
      return absl::AlreadyExistsError(
          absl::StrCat(port_path, ".host_port: ", port.host_port(), " is forwarded already"));
    }
    forward.host_port = static_cast<uint16_t>(port.host_port());
    forward.guest_port = static_cast<uint16_t>(port.guest_port());
    options.forwards.push_back(forward);
  }
  return options;
}

absl::StatusOr<std::optional<net::BackendConfig>> TranslateBackend(
    const ::vmservice::NICConfig& nic, const std::string& path) {
  RETURN_IF_ERROR(CheckText(path + ".switch_id", nic.switch_id(), kMaxAliasBytes));
  RETURN_IF_ERROR(CheckText(path + ".port_id", nic.port_id(), kMaxAliasBytes));
  const bool has_switch = !nic.switch_id().empty();
  if (!nic.port_id().empty() && !has_switch) {
    return Invalid(path + ".port_id", "names a port of a switch; set switch_id, too");
  }
  if (has_switch && nic.backend_case() != ::vmservice::NICConfig::BACKEND_NOT_SET) {
    return Invalid(path + ".switch_id", "contradicts tap and user; a card has one backend");
  }
  net::BackendConfig config;
  switch (nic.backend_case()) {
    case ::vmservice::NICConfig::kTap:
      RETURN_IF_ERROR(CheckDeviceName(path + ".tap.name", nic.tap().name()));
      config.where = net::TapOptions{.name = nic.tap().name()};
      return config;
    case ::vmservice::NICConfig::kUser: {
      ASSIGN_OR_RETURN(config.where, TranslateUser(nic.user(), path + ".user"));
      return config;
    }
    case ::vmservice::NICConfig::BACKEND_NOT_SET:
      break;
  }
  if (!has_switch) return std::optional<net::BackendConfig>();
  config.where = net::SwitchOptions{.switch_id = nic.switch_id(), .port_id = nic.port_id()};
  return config;
}

absl::StatusOr<bool> OnOrOff(const std::string& value, const std::string& path) {
  if (value == "on" || value == "off") return value == "on";
  return Invalid(path, absl::StrCat("\"", value, "\" is neither \"on\" nor \"off\""));
}

absl::StatusOr<uint64_t> BitsPerSecond(const std::string& value, const std::string& path) {
  // Slower than that a single long frame takes minutes; faster no host is.
  constexpr uint64_t kLeast = 10'000;
  constexpr uint64_t kMost = 1'000'000'000'000;
  uint64_t bits = 0;
  const char* const end = value.data() + value.size();
  const auto parsed = std::from_chars(value.data(), end, bits);
  if (parsed.ec != std::errc() || parsed.ptr != end) {
    return Invalid(path, absl::StrCat("\"", value, "\" isn't a number of bits a second"));
  }
  if (bits != 0) RETURN_IF_ERROR(CheckRange(path, bits, kLeast, kMost));
  return bits;
}

}  // namespace

absl::StatusOr<NicConfig> TranslateNic(const ::vmservice::NICConfig& nic, const std::string& path,
                                       NicPurpose purpose) {
  NicConfig out;
  const absl::StatusOr<Guid> id = Guid::Parse(nic.nic_id());
  if (!id.ok()) {
    return Invalid(path + ".nic_id", absl::StrCat("\"", nic.nic_id(),
                                                  "\" isn't a GUID, such as "
                                                  "3f2504e0-4f89-11d3-9a0c-0305e82c3301"));
  }
  out.id = *id;
  if (!nic.mac_address().empty()) {
    absl::StatusOr<net::MacAddress> mac = net::MacAddress::ParseForNic(nic.mac_address());
    if (!mac.ok()) return WithContext(mac.status(), path + ".mac_address");
    out.mac = *mac;
  } else if (purpose == NicPurpose::kAdd) {
    out.mac = net::MacAddress::ForNic(out.id);
  }
  RETURN_IF_ERROR(CheckText(path + ".nic_name", nic.nic_name(), kMaxNameBytes));
  out.name = nic.nic_name();
  ASSIGN_OR_RETURN(out.backend, TranslateBackend(nic, path));
  if (!out.backend.has_value() && purpose != NicPurpose::kRemove) {
    return Invalid(path, "has no backend; set switch_id, tap or user");
  }
  return out;
}

absl::Status TranslateNics(const ::vmservice::DevicesConfig& devices, machine::MachineConfig& out) {
  std::map<Guid, int> by_id;
  std::map<net::MacAddress, int> by_mac;
  for (int i = 0; i < devices.nic_config_size(); ++i) {
    const std::string path = absl::StrCat("config.devices_config.nic_config[", i, "]");
    ASSIGN_OR_RETURN(NicConfig nic, TranslateNic(devices.nic_config(i), path, NicPurpose::kAdd));
    if (const auto [first, added] = by_id.try_emplace(nic.id, i); !added) {
      return absl::AlreadyExistsError(
          absl::StrCat(path, ".nic_id: is nic_config[", first->second, "] already"));
    }
    if (const auto [first, added] = by_mac.try_emplace(*nic.mac, i); !added) {
      return absl::AlreadyExistsError(absl::StrCat(path, ".mac_address: ", nic.mac->ToString(),
                                                   " is nic_config[", first->second,
                                                   "]'s already"));
    }
    const auto tuning = out.nic_tuning.find(nic.id);
    if (tuning != out.nic_tuning.end()) {
      const absl::Status fits = machine::CheckNicTuning(nic, tuning->second);
      if (!fits.ok()) {
        return absl::Status(fits.code(), absl::StrCat("config.", std::string(fits.message())));
      }
    }
    out.nics.push_back(std::move(nic));
  }
  return absl::OkStatus();
}

absl::Status TranslateNicTuning(const std::string& key, const std::string& value,
                                const std::string& path, machine::MachineConfig& out) {
  const std::string_view rest = std::string_view(key).substr(sizeof machine::kNicKeyPrefix - 1);
  const size_t dot = rest.find('.');
  const absl::StatusOr<Guid> id = Guid::Parse(rest.substr(0, dot));
  if (!id.ok() || dot == std::string_view::npos) {
    return Invalid(path, "isn't bothy.nic.<nic_id>.<what>, with a GUID");
  }
  NicTuning& tuning = out.nic_tuning[*id];
  const std::string_view what = rest.substr(dot + 1);
  if (what == "vhost") {
    if (value == "auto") {
      tuning.vhost = NicTuning::Vhost::kAuto;
      return absl::OkStatus();
    }
    const absl::StatusOr<bool> on = OnOrOff(value, path);
    if (!on.ok()) {
      return Invalid(path, absl::StrCat("\"", value, "\" is none of \"auto\", \"on\", \"off\""));
    }
    tuning.vhost = *on ? NicTuning::Vhost::kOn : NicTuning::Vhost::kOff;
  } else if (what == "rx_bps") {
    ASSIGN_OR_RETURN(tuning.limits.receive_bps, BitsPerSecond(value, path));
  } else if (what == "tx_bps") {
    ASSIGN_OR_RETURN(tuning.limits.send_bps, BitsPerSecond(value, path));
  } else if (what == "host_loopback") {
    ASSIGN_OR_RETURN(tuning.host_loopback, OnOrOff(value, path));
  } else {
    return Invalid(path, "unknown key; docs/extra-data.md lists those there are");
  }
  if (tuning.vhost == NicTuning::Vhost::kOn && tuning.limits != net::RateLimits{}) {
    return Invalid(path, "a card whose rate is limited can't have vhost=on");
  }
  return absl::OkStatus();
}

}  // namespace bothy::vmservice
