#include "net/tap/open_tap.h"

#include <linux/if_link.h>
#include <net/if.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "net/netlink/links.h"
#include "net/tap/tap_backend.h"
#include "net/tap/tap_device.h"
#include "support/guid.h"

namespace bothy::net {
namespace {

constexpr size_t kLongestAlias = 255;  // IFALIASZ, less a NUL
// What Linux lets a tap have: 65,535 less an Ethernet header.
constexpr uint32_t kLargestTapMtu = 65'521;
constexpr const char* kPortNames = "bothy%d";  // of which the kernel takes the first that is free

ifinfomsg LinkNumber(int index) {
  ifinfomsg link{};
  link.ifi_index = index;
  return link;
}

absl::Status BringUp(Links& links, int index, const std::string& name) {
  absl::Status status = links.SetUp(index, true, absl::StrCat("bringing up ", name));
  if (!absl::IsPermissionDenied(status)) return status;
  return absl::PermissionDeniedError(absl::StrCat(std::string(status.message()),
                                                  ": bring it up beforehand (ip link set ", name,
                                                  " up), or give the server CAP_NET_ADMIN"));
}

bool SameIdentity(const std::string& wanted, const std::string& found) {
  if (found.empty()) return false;
  if (wanted == found) return true;
  const absl::StatusOr<Guid> a = Guid::Parse(wanted);
  const absl::StatusOr<Guid> b = Guid::Parse(found);
  return a.ok() && b.ok() && *a == *b;
}

absl::StatusOr<Link> FindBridge(Links& links, const std::string& switch_id) {
  ASSIGN_OR_RETURN(const std::vector<Link> all, links.All());
  std::optional<Link> found;
  std::optional<Link> other_kind;
  for (const Link& link : all) {
    if (link.name != switch_id && !SameIdentity(switch_id, link.alias)) continue;
    if (link.kind != "bridge") {
      other_kind = link;
    } else if (found.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("switch '", switch_id, "' is ambiguous: bridges ", found->name, " and ",
                       link.name, " both have that name or alias"));
    } else {
      found = link;
    }
  }
  if (found.has_value()) return *std::move(found);
  if (other_kind.has_value()) {
    return absl::NotFoundError(absl::StrCat("switch '", switch_id, "': network device ",
                                            other_kind->name, " isn't a bridge"));
  }
  return absl::NotFoundError(
      absl::StrCat("switch '", switch_id,
                   "': no bridge of this host has that name or alias (ip link add NAME type "
                   "bridge; ip link set NAME alias ID)"));
}

// Of the tap itself, which isn't the guest's. A bridge without an address of its own takes the
// lowest of its ports', so it had better be a high one: guests may come and go without the host
// changing its address.
std::array<uint8_t, 6> HighAddress() {
  std::array<uint8_t, 6> address{};
  while (::getrandom(address.data(), address.size(), 0) != static_cast<ssize_t>(address.size())) {
  }
  address[0] = 0xFE;
  return address;
}

absl::Status MakePort(Links& links, const TapDevice& tap, const Link& bridge,
                      const std::string& port_id) {
  // The host itself says nothing on the port, which is the bridge's (fails where there is no IPv6).
  LinkRequest silence(RTM_NEWLINK, NLM_F_ACK, LinkNumber(tap.index));
  silence.Begin(IFLA_AF_SPEC)
      .Begin(AF_INET6)
      .Byte(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
  silence.End().End();
  absl::Status silent = links.Change(std::move(silence), "");
  if (absl::IsPermissionDenied(silent)) return silent;

  // The MTU first: a bridge takes the smallest of its ports'.
  LinkRequest settings(RTM_NEWLINK, NLM_F_ACK, LinkNumber(tap.index));
  settings.Number(IFLA_MTU, bridge.mtu).Bytes(IFLA_ADDRESS, HighAddress());
  if (!port_id.empty()) {
    settings.Bytes(IFLA_IFALIAS,
                   std::span(reinterpret_cast<const uint8_t*>(port_id.data()), port_id.size()));
  }
  RETURN_IF_ERROR(links.Change(std::move(settings), absl::StrCat("configuring ", tap.name)));
  LinkRequest join(RTM_NEWLINK, NLM_F_ACK, LinkNumber(tap.index));
  join.Number(IFLA_MASTER, static_cast<uint32_t>(bridge.index));
  RETURN_IF_ERROR(
      links.Change(std::move(join), absl::StrCat("adding ", tap.name, " to bridge ", bridge.name)));
  return BringUp(links, tap.index, tap.name);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> OpenTapBackend(const std::string& name,
                                                        uint16_t queue_pairs, IoLoop& loop) {
  ASSIGN_OR_RETURN(TapDevice tap, OpenTap(name, TapName::kExact, queue_pairs));
  ASSIGN_OR_RETURN(Links links, Links::Open());
  ASSIGN_OR_RETURN(const Link link, links.ByIndex(tap.index));
  // One that is up already is left alone, which takes no privilege.
  if ((link.flags & IFF_UP) == 0) {
    RETURN_IF_ERROR(BringUp(links, link.index, link.name));
    tap.brought_up = !tap.made;
  }
  absl::StatusOr<std::unique_ptr<Backend>> backend =
      TapBackend::Create(std::move(tap), std::nullopt, loop);
  return backend;
}

absl::StatusOr<std::unique_ptr<Backend>> OpenSwitchPort(const std::string& switch_id,
                                                        const std::string& port_id,
                                                        uint16_t queue_pairs, IoLoop& loop) {
  if (switch_id.empty()) return absl::InvalidArgumentError("no switch is named");
  if (port_id.size() > kLongestAlias) {
    return absl::InvalidArgumentError(
        absl::StrCat("port '", port_id, "': longer than ", kLongestAlias, " bytes"));
  }
  ASSIGN_OR_RETURN(Links links, Links::Open());
  ASSIGN_OR_RETURN(const Link bridge, FindBridge(links, switch_id));
  if (bridge.mtu > kLargestTapMtu) {
    return absl::FailedPreconditionError(absl::StrCat(
        "bridge ", bridge.name, " has an MTU of ", bridge.mtu, ", and its port can have ",
        kLargestTapMtu, " at most: ip link set ", bridge.name, " mtu ", kLargestTapMtu));
  }
  absl::StatusOr<TapDevice> tap = OpenTap(kPortNames, TapName::kPattern, queue_pairs);
  if (absl::IsPermissionDenied(tap.status())) {
    return absl::PermissionDeniedError(
        absl::StrCat("making a port of bridge ", bridge.name,
                     " takes CAP_NET_ADMIN, and access to /dev/net/tun: give the server that, or "
                     "give the NIC a tap made beforehand, or user-mode networking"));
  }
  RETURN_IF_ERROR(tap.status());
  RETURN_IF_ERROR(MakePort(links, *tap, bridge, port_id));
  tap->mtu = static_cast<uint16_t>(std::min<uint32_t>(bridge.mtu, UINT16_MAX));
  return TapBackend::Create(*std::move(tap), TapBackend::Bridge{bridge.name, bridge.index}, loop);
}

}  // namespace bothy::net
