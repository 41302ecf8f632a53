#include "net/tap/tap_device.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "net/netlink/links.h"

namespace bothy::net {
namespace {

constexpr const char* kTunDevice = "/dev/net/tun";
// <linux/if_tun.h> of Linux 6.2.
constexpr unsigned kUso4 = 0x20;  // TUN_F_USO4
constexpr unsigned kUso6 = 0x40;  // TUN_F_USO6
// Of what a guest has sent, waiting in queues of the host: enough for any burst, and what a guest
// can make the kernel hold. (The kernel's own limit is none.)
constexpr int kSendBufferBytes = 4 << 20;
constexpr uint32_t kLargestMtu = 65'535;

// What the kernel takes for one (dev_valid_name), and no pattern.
absl::Status CheckName(const std::string& name) {
  if (name.empty() || name.size() >= IFNAMSIZ) {
    return absl::InvalidArgumentError(absl::StrCat("'", name,
                                                   "' can't be the name of a network device: it "
                                                   "has 1 to ",
                                                   IFNAMSIZ - 1, " bytes"));
  }
  const auto bad = [](unsigned char c) {
    return c == '/' || c == ':' || c == '%' || c == 0 || std::isspace(c) != 0;
  };
  if (name == "." || name == ".." || std::any_of(name.begin(), name.end(), bad)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", name,
                     "' can't be the name of a network device: '/', ':', '%' and blanks aren't "
                     "allowed in one"));
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> OpenTunDevice() {
  UniqueFd fd(::open(kTunDevice, O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (fd) return fd;
  const int error = errno;
  if (error == ENOENT || error == ENODEV || error == ENXIO) {
    return absl::FailedPreconditionError(
        absl::StrCat("this host has no ", kTunDevice, ": load the module tun (modprobe tun)"));
  }
  absl::Status status = ErrnoStatus(error, absl::StrCat("opening ", kTunDevice));
  if (!absl::IsPermissionDenied(status)) return status;
  return absl::PermissionDeniedError(
      absl::StrCat(std::string(status.message()),
                   ": it takes write access to that (and CAP_NET_ADMIN, unless "
                   "the tap was made for this user beforehand)"));
}

// Makes a descriptor a queue of a device. 0 or an error of errno.
int Attach(int fd, std::string& name, bool multi_queue) {
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), std::min<size_t>(name.size(), IFNAMSIZ - 1));
  request.ifr_flags = static_cast<int16_t>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR |
                                           (multi_queue ? IFF_MULTI_QUEUE : 0));
  if (::ioctl(fd, TUNSETIFF, &request) != 0) return errno;
  name = std::string(request.ifr_name, ::strnlen(request.ifr_name, IFNAMSIZ));
  return 0;
}

absl::Status Explain(int error, const std::string& name, bool exists) {
  const std::string what = absl::StrCat("tap '", name, "'");
  switch (error) {
    case EPERM:
    case EACCES:
      return absl::PermissionDeniedError(
          exists ? absl::StrCat(what,
                                " belongs to another user: make it for this one (ip tuntap "
                                "add dev ",
                                name,
                                " mode tap user USER), or give the server "
                                "CAP_NET_ADMIN")
                 : absl::StrCat(what,
                                " isn't there, and making it takes CAP_NET_ADMIN: make it "
                                "beforehand (ip tuntap add dev ",
                                name, " mode tap user USER; ip link set ", name,
                                " up), or give the "
                                "server CAP_NET_ADMIN"));
    case EBUSY:
      return absl::FailedPreconditionError(
          absl::StrCat(what, ": in use by another process or card"));
    case EINVAL:
      return absl::InvalidArgumentError(
          absl::StrCat("network device '", name, "' isn't a tap (ip tuntap add mode tap)"));
    default:
      return ErrnoStatus(error, absl::StrCat("opening ", what));
  }
}

absl::Status Ioctl(int fd, unsigned long request, const void* argument, const char* what) {
  if (::ioctl(fd, request, argument) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat(what, " of a tap"));
}

}  // namespace

absl::StatusOr<TapDevice> OpenTap(const std::string& name, TapName kind, uint16_t queue_pairs) {
  if (kind == TapName::kExact) RETURN_IF_ERROR(CheckName(name));
  ASSIGN_OR_RETURN(Links links, Links::Open());
  TapDevice device;
  device.name = name;
  std::optional<Link> before;
  if (kind == TapName::kExact) {
    absl::StatusOr<Link> link = links.ByName(name);
    if (link.ok()) {
      before = *std::move(link);
    } else if (!absl::IsNotFound(link.status())) {
      return link.status();
    }
  }
  device.made = !before.has_value();
  // Of one with several queues the kernel would give us some, too.
  if (before.has_value() && before->tap_queues != 0) return Explain(EBUSY, name, true);

  ASSIGN_OR_RETURN(UniqueFd first, OpenTunDevice());
  bool multi_queue = queue_pairs > 1;
  int error = Attach(first.get(), device.name, multi_queue);
  if (error == EINVAL && before.has_value()) {
    // How many queues a device may have is decided when it is made.
    multi_queue = !multi_queue;
    error = Attach(first.get(), device.name, multi_queue);
  }
  if (error != 0) return Explain(error, name, before.has_value());
  device.queues.push_back(std::move(first));
  while (multi_queue && device.queues.size() < queue_pairs) {
    ASSIGN_OR_RETURN(UniqueFd next, OpenTunDevice());
    error = Attach(next.get(), device.name, multi_queue);
    if (error != 0) return Explain(error, name, before.has_value());
    device.queues.push_back(std::move(next));
  }

  const int header_bytes = kHeaderBytes;
  const int little_endian = 1;
  for (const UniqueFd& queue : device.queues) {
    RETURN_IF_ERROR(Ioctl(queue.get(), TUNSETVNETHDRSZ, &header_bytes, "header size"));
    RETURN_IF_ERROR(Ioctl(queue.get(), TUNSETVNETLE, &little_endian, "byte order"));
    RETURN_IF_ERROR(Ioctl(queue.get(), TUNSETSNDBUF, &kSendBufferBytes, "send buffer"));
  }
  const int fd = device.queues.front().get();
  device.has_uso =
      ::ioctl(fd, TUNSETOFFLOAD, static_cast<unsigned long>(TUN_F_CSUM | kUso4 | kUso6)) == 0;
  RETURN_IF_ERROR(SetTapOffloads(fd, {}, device.has_uso));

  ASSIGN_OR_RETURN(const Link link, links.ByName(device.name));
  device.index = link.index;
  device.mtu = static_cast<uint16_t>(std::min(link.mtu, kLargestMtu));
  return device;
}

absl::Status SetTapOffloads(int queue, const Offloads& offloads, bool has_uso) {
  unsigned flags = 0;
  if (offloads.checksum) {
    flags |= TUN_F_CSUM;
    if (offloads.tso4) flags |= TUN_F_TSO4;
    if (offloads.tso6) flags |= TUN_F_TSO6;
    if (offloads.ecn && (offloads.tso4 || offloads.tso6)) flags |= TUN_F_TSO_ECN;
    if (offloads.uso && has_uso) flags |= kUso4 | kUso6;
  }
  if (::ioctl(queue, TUNSETOFFLOAD, static_cast<unsigned long>(flags)) == 0)
    return absl::OkStatus();
  return ErrnoStatus(errno, "offloads of a tap");
}

absl::Status UseTapQueue(int queue, bool use) {
  ifreq request{};
  request.ifr_flags = static_cast<int16_t>(use ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE);
  return Ioctl(queue, TUNSETQUEUE, &request, use ? "attaching a queue" : "detaching a queue");
}

bool TapExists(int queue) {
  ifreq request{};
  return ::ioctl(queue, TUNGETIFF, &request) == 0;
}

}  // namespace bothy::net
