#include "net/netlink/links.h"

#include <linux/if_link.h>
#include <net/if.h>
#include <sys/socket.h>

#include <cerrno>
#include <optional>

#include "absl/strings/str_cat.h"

namespace bothy::net {
namespace {

// Of a datagram: the kernel fills at most 32 KiB at a time when it lists, and one link fits well.
constexpr size_t kDatagramBytes = 64 << 10;
// Of a list during which links changed.
constexpr int kMostTries = 16;

}  // namespace

absl::StatusOr<UniqueFd> OpenRouteSocket(uint32_t groups, int flags) {
  UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, NETLINK_ROUTE));
  if (!fd) return ErrnoStatus(errno, "rtnetlink socket");
  // Explanations of errors; kernels before 4.12 have none.
  const int on = 1;
  (void)::setsockopt(fd.get(), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = groups;
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return ErrnoStatus(errno, "rtnetlink socket");
  }
  return fd;
}

absl::StatusOr<Links> Links::Open() {
  ASSIGN_OR_RETURN(UniqueFd socket, OpenRouteSocket(0, 0));
  return Links(std::move(socket));
}

absl::Status Links::Ask(LinkRequest request, const std::string& what,
                        const std::function<void(Link&, bool)>& on_link) {
  const uint32_t sequence = ++sequence_;
  const std::span<const uint8_t> message = request.Finish(sequence);
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  if (::sendto(socket_.get(), message.data(), message.size(), 0,
               reinterpret_cast<sockaddr*>(&kernel), sizeof kernel) < 0) {
    return ErrnoStatus(errno, what);
  }
  std::vector<uint8_t> datagram(kDatagramBytes);
  std::optional<absl::Status> result;
  while (!result) {
    sockaddr_nl from{};
    socklen_t from_size = sizeof from;
    const ssize_t size = ::recvfrom(socket_.get(), datagram.data(), datagram.size(), 0,
                                    reinterpret_cast<sockaddr*>(&from), &from_size);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return ErrnoStatus(errno, what);
    if (from.nl_pid != 0) continue;  // not from the kernel
    ParseLinkReplies(std::span(datagram).first(static_cast<size_t>(size)), [&](LinkReply& reply) {
      if (reply.sequence != sequence) return true;
      if (reply.link) on_link(*reply.link, reply.interrupted);
      if (!reply.error) return true;
      result = *reply.error == 0 ? absl::OkStatus() : ErrnoStatus(*reply.error, what);
      if (!result->ok() && !reply.explanation.empty()) {
        result = absl::Status(result->code(), absl::StrCat(std::string(result->message()), " (",
                                                           reply.explanation, ")"));
      }
      return false;
    });
  }
  return *result;
}

absl::StatusOr<std::vector<Link>> Links::All() {
  std::vector<Link> links;
  for (int i = 0; i < kMostTries; ++i) {
    links.clear();
    bool mixture = false;
    LinkRequest request(RTM_GETLINK, NLM_F_DUMP, {});
    request.Number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    RETURN_IF_ERROR(
        Ask(std::move(request), "listing network devices", [&](Link& link, bool interrupted) {
          mixture |= interrupted;
          links.push_back(std::move(link));
        }));
    if (!mixture) break;
  }
  return links;
}

absl::StatusOr<Link> Links::Find(LinkRequest request, const std::string& what, uint32_t mask) {
  std::optional<Link> found;
  request.Number(IFLA_EXT_MASK, mask);
  RETURN_IF_ERROR(
      Ask(std::move(request), what, [&found](Link& link, bool) { found = std::move(link); }));
  if (!found) return absl::InternalError(absl::StrCat(what, ": the kernel described none"));
  return *std::move(found);
}
absl::StatusOr<Link> Links::ByName(const std::string& name) {
  LinkRequest request(RTM_GETLINK, NLM_F_ACK, {});
  request.String(IFLA_IFNAME, name);
  return Find(std::move(request), absl::StrCat("network device '", name, "'"),
              RTEXT_FILTER_SKIP_STATS);
}
absl::StatusOr<Link> Links::ByIndex(int index) {
  ifinfomsg link{};
  link.ifi_index = index;
  return Find(LinkRequest(RTM_GETLINK, NLM_F_ACK, link),
              absl::StrCat("network device number ", index), RTEXT_FILTER_SKIP_STATS);
}
absl::StatusOr<LinkStatistics> Links::StatisticsOf(int index) {
  ifinfomsg header{};
  header.ifi_index = index;
  const std::string what = absl::StrCat("statistics of network device number ", index);
  ASSIGN_OR_RETURN(const Link link, Find(LinkRequest(RTM_GETLINK, NLM_F_ACK, header), what, 0));
  if (!link.statistics) return absl::InternalError(absl::StrCat(what, ": the kernel has none"));
  return *link.statistics;
}

absl::Status Links::SetUp(int index, bool up, const std::string& what) {
  ifinfomsg link{};
  link.ifi_index = index;
  link.ifi_flags = up ? IFF_UP : 0;
  link.ifi_change = IFF_UP;
  return Change(LinkRequest(RTM_NEWLINK, NLM_F_ACK, link), what);
}

absl::Status Links::Change(LinkRequest request, const std::string& what) {
  return Ask(std::move(request), what, [](Link&, bool) {});
}

}  // namespace bothy::net
