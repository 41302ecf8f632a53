#include "net/user/forward_ports.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "support/unique_fd.h"

namespace bothy::net {
namespace {

bool IsUdp(const Forward& forward) { return forward.protocol == Forward::Protocol::kUdp; }

absl::Status TryForward(const Forward& forward) {
  ASSIGN_OR_RETURN(const sockaddr_in address, ListenAddress(forward));
  const UniqueFd fd(
      ::socket(AF_INET, (IsUdp(forward) ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0));
  if (!fd) return ForwardError(errno, forward);
  // As libslirp has it: connections that have ended are in nobody's way.
  const int on = 1;
  if (!IsUdp(forward)) (void)::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      (!IsUdp(forward) && ::listen(fd.get(), 1) != 0)) {
    return ForwardError(errno, forward);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<sockaddr_in> ListenAddress(const Forward& forward) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  if (!forward.host_address.empty() &&
      ::inet_pton(AF_INET, forward.host_address.c_str(), &address.sin_addr) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", forward.host_address, "' isn't an IPv4 address to forward a port of"));
  }
  if (forward.host_port == 0 || forward.guest_port == 0) {
    return absl::InvalidArgumentError("port 0 can't be forwarded; ports are 1..65535");
  }
  address.sin_port = htons(forward.host_port);
  return address;
}

absl::Status ForwardError(int error, const Forward& forward) {
  const std::string what =
      absl::StrCat("forwarding ", IsUdp(forward) ? "UDP" : "TCP", " port ", forward.host_port,
                   forward.host_address.empty() ? "" : absl::StrCat(" of ", forward.host_address));
  if (error == EADDRINUSE) {
    return absl::AlreadyExistsError(absl::StrCat(what, ": the port is taken on this host"));
  }
  if (error == EADDRNOTAVAIL) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": this host hasn't that address"));
  }
  return ErrnoStatus(error, what);
}

absl::Status TryForwards(const std::vector<Forward>& wanted, const std::vector<Forward>& held) {
  for (const Forward& forward : wanted) {
    const bool is_held = std::any_of(held.begin(), held.end(), [&](const Forward& other) {
      return other.protocol == forward.protocol && other.host_port == forward.host_port;
    });
    if (!is_held) RETURN_IF_ERROR(TryForward(forward));
  }
  return absl::OkStatus();
}

}  // namespace bothy::net
