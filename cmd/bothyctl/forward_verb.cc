#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/call.h"
#include "cmd/bothyctl/command_line.h"
#include "cmd/bothyctl/guest_port.h"
#include "cmd/bothyctl/option_types.h"
#include "cmd/bothyctl/verbs.h"
#include "support/unix_socket.h"

namespace bothy::bothyctl {
namespace {

constexpr char kExamples[] =
    R"(  bothyctl -a vm.sock forward 2222:22
      connections to port 2222 of this machine's loopback reach vsock port 22 of the guest
  bothyctl -a vm.sock forward 0.0.0.0:8080:80
      the same for everybody who reaches this machine
  bothyctl -a vm.sock forward ./docker.sock:2375
      a Unix socket instead
  bothyctl -a vm.sock socket add 5000 /run/agent.sock
      the other way needs no forward: the guest's connections to port 5000 reach that socket)";

struct Forward {
  std::string address = "127.0.0.1";
  uint16_t tcp_port = 0;
  std::string unix_path;  // not empty: instead of TCP
  uint32_t guest_port = 0;
};

template <typename T>
bool ParseNumber(std::string_view text, T* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

absl::StatusOr<Forward> ParseForward(std::string_view text) {
  const auto wrong = [text] {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", std::string(text),
                     "\": write [ADDRESS:]TCP_PORT:GUEST_PORT, or PATH:GUEST_PORT with a / in it"));
  };
  Forward forward;
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos ||
      !ParseNumber(text.substr(colon + 1), &forward.guest_port)) {
    return wrong();
  }
  const std::string_view listen = text.substr(0, colon);
  if (listen.find('/') != std::string_view::npos) {
    forward.unix_path = std::string(listen);
    return forward;
  }
  const size_t second = listen.rfind(':');
  if (second != std::string_view::npos) forward.address = std::string(listen.substr(0, second));
  const std::string_view port =
      second == std::string_view::npos ? listen : listen.substr(second + 1);
  in_addr address{};
  if (!ParseNumber(port, &forward.tcp_port) || forward.tcp_port == 0 ||
      ::inet_pton(AF_INET, forward.address.c_str(), &address) != 1) {
    return wrong();
  }
  return forward;
}

absl::StatusOr<UniqueFd> ListenTcp(const Forward& forward) {
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(forward.tcp_port);
  (void)::inet_pton(AF_INET, forward.address.c_str(), &address.sin_addr);
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(socket.get(), SOMAXCONN) != 0) {
    return ErrnoStatus(errno, absl::StrCat(forward.address, ":", forward.tcp_port));
  }
  return socket;
}

// One accepted connection, from its beginning to its end.
void Serve(const UniqueFd& client, const std::string& path, uint32_t port) {
  const absl::StatusOr<UniqueFd> guest = ConnectToGuest(path, port);
  if (!guest.ok()) {
    (void)Tell("forward", guest.status());
    return;
  }
  PassBytes(client.get(), client.get(), guest->get());
}

int Run(const Forward& forward, const std::string& path) {
  UnixListener unix_listener;
  absl::StatusOr<UniqueFd> listener = UniqueFd();
  if (forward.unix_path.empty()) {
    listener = ListenTcp(forward);
  } else {
    absl::StatusOr<UnixListener> made = UnixListener::Create(forward.unix_path);
    if (!made.ok()) return Tell("forward", made.status());
    unix_listener = *std::move(made);
    listener = unix_listener.TakeSocket();
    const int blocking = 0;
    (void)::ioctl(listener->get(), FIONBIO, &blocking);
  }
  if (!listener.ok()) return Tell("forward", listener.status());
  while (true) {
    UniqueFd client(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client.valid()) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      return Tell("forward", ErrnoStatus(errno, "accept"));
    }
    try {
      std::thread([client = std::move(client), path, port = forward.guest_port] {
        Serve(client, path, port);
      }).detach();
    } catch (const std::system_error& error) {
      (void)Tell("forward", absl::ResourceExhaustedError(error.what()));
    }
  }
}

}  // namespace

void AddForwardVerb(CommandLine& commands) {
  CLI::App* const verb = commands.AddVerb(
      &commands.app(), "forward",
      "Listen here, and pass connections on to a port of the guest, until it is ended", kExamples);
  struct Flags {
    Forward forward;
    std::string path;
  };
  const auto flags = std::make_shared<Flags>();
  AddParsed<Forward>(*verb, "forward", "Where to listen, and the guest's vsock port", ParseForward,
                     [flags](Forward forward) { flags->forward = std::move(forward); })
      ->type_name("LISTEN:PORT")
      ->required();
  AddVsockPath(*verb, &flags->path);
  commands.OnVerb(verb, [flags](const Globals& globals) -> int {
    (void)std::signal(SIGPIPE, SIG_IGN);
    int status = kExitOk;
    const std::optional<std::string> path = VsockPathOrTell(flags->path, globals, &status);
    if (!path) return status;
    return Run(flags->forward, *path);
  });
}

}  // namespace bothy::bothyctl
