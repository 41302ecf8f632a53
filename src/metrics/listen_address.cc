#include "metrics/listen_address.h"

#include <netdb.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bothy::metrics {
namespace {

using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

absl::StatusOr<Addresses> Resolve(const ListenAddress& address) {
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(),
                                  absl::StrCat(address.port).c_str(), &hints, &found);
  if (error != 0) {
    return absl::NotFoundError(
        absl::StrCat("no address of host \"", address.host, "\": ", ::gai_strerror(error)));
  }
  return Addresses(found, &::freeaddrinfo);
}

std::string NameOf(int fd) {
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  auto* const address = reinterpret_cast<sockaddr*>(&bound);
  if (::getsockname(fd, address, &size) != 0 ||
      ::getnameinfo(address, size, host.data(), host.size(), port.data(), port.size(),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "?";
  }
  return bound.ss_family == AF_INET6 ? absl::StrCat("[", host.data(), "]:", port.data())
                                     : absl::StrCat(host.data(), ":", port.data());
}

absl::StatusOr<ListeningSocket> ListenTcp(const addrinfo& on) {
  ListeningSocket socket{
      .fd = UniqueFd(::socket(on.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)),
      .file = {},
      .name = {}};
  if (!socket.fd) return ErrnoStatus(errno, "socket");
  const int yes = 1;
  if (::setsockopt(socket.fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
      ::bind(socket.fd.get(), on.ai_addr, on.ai_addrlen) != 0 ||
      ::listen(socket.fd.get(), SOMAXCONN) != 0) {
    if (errno == EADDRINUSE) return absl::AlreadyExistsError("somebody listens there already");
    return ErrnoStatus(errno, "listen");
  }
  socket.name = NameOf(socket.fd.get());
  return socket;
}

}  // namespace

absl::StatusOr<ListenAddress> ListenAddress::Parse(std::string_view text) {
  constexpr std::string_view kUnix = "unix:";
  ListenAddress address;
  if (text.starts_with(kUnix)) {
    address.unix_path = text.substr(kUnix.size());
    if (address.unix_path.empty()) return absl::InvalidArgumentError("unix: needs a path");
    return address;
  }
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", std::string(text), "\" is neither unix:PATH nor HOST:PORT"));
  }
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", std::string(text), "\": an IPv6 address goes in brackets: [::1]:9100"));
  }
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (port.empty() || error != std::errc() || end != port.data() + port.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("port \"", std::string(port), "\" is not a number in 0..65535"));
  }
  address.host = host;
  return address;
}

absl::StatusOr<ListeningSocket> Listen(const ListenAddress& address) {
  if (!address.unix_path.empty()) {
    absl::StatusOr<UnixListener> listener = UnixListener::Create(address.unix_path);
    if (absl::IsAborted(listener.status())) {
      return absl::AlreadyExistsError("somebody listens there already");
    }
    RETURN_IF_ERROR(listener.status());
    return ListeningSocket{.fd = listener->TakeSocket(),
                           .file = listener->TakeFile(),
                           .name = absl::StrCat("unix:", address.unix_path)};
  }
  ASSIGN_OR_RETURN(const Addresses addresses, Resolve(address));
  absl::Status first = absl::NotFoundError("the host has no address");
  for (const addrinfo* on = addresses.get(); on != nullptr; on = on->ai_next) {
    absl::StatusOr<ListeningSocket> socket = ListenTcp(*on);
    if (socket.ok()) return socket;
    if (on == addresses.get()) first = socket.status();
  }
  return first;
}

}  // namespace bothy::metrics
