#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <climits>
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
#include "support/check.h"
#include "support/unix_socket.h"

namespace bothy::bothyctl {
namespace {

constexpr char kExamples[] =
    R"(  bothyctl -a vm.sock forward 2222:22
      connections to port 2222 of this machine's loopback reach vsock port 22 of the guest
  bothyctl -a vm.sock forward 0.0.0.0:8080:80
      the same for everybody who reaches this machine
  bothyctl -a vm.sock forward 0:22
      a port of this machine that is free; the first line of output says which
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
  if (!ParseNumber(port, &forward.tcp_port) ||
      ::inet_pton(AF_INET, forward.address.c_str(), &address) != 1) {
    return wrong();
  }
  return forward;
}

absl::StatusOr<UniqueFd> ListenTcp(const Forward& forward) {
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(forward.tcp_port);
  (void)::inet_pton(AF_INET, forward.address.c_str(), &address.sin_addr);
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(socket.get(), SOMAXCONN) != 0) {
    const std::string what = absl::StrCat("listen on ", forward.address, ":", forward.tcp_port);
    if (errno == EADDRINUSE) {
      return absl::AlreadyExistsError(absl::StrCat(what, ": somebody else listens there"));
    }
    return ErrnoStatus(errno, what);
  }
  return socket;
}

// Where it listens, as people write it: the port may be one that the system has chosen.
std::string ListensOn(const Forward& forward, int listener) {
  if (!forward.unix_path.empty()) return forward.unix_path;
  sockaddr_in address{};
  socklen_t size = sizeof address;
  (void)::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  return absl::StrCat(forward.address, ":", ntohs(address.sin_port));
}

// One accepted connection, from its beginning to its end.
void Serve(const UniqueFd& client, const std::string& path, uint32_t port) {
  const absl::StatusOr<UniqueFd> guest = ConnectToGuest(path, port);
  const absl::Status status =
      guest.ok() ? PassBytes(client.get(), client.get(), guest->get()) : guest.status();
  if (!status.ok()) (void)Tell("forward", status);
}

// How many connections the process has descriptors for, two each.
uint64_t MostConnections() {
  constexpr uint64_t kOthers = 16;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1;
  return limit.rlim_cur < kOthers + 2 ? 1 : (limit.rlim_cur - kOthers) / 2;
}

// Accepts and serves until a signal ends it.
class Forwarder {
 public:
  // Blocks the signals that end it, so the process must have one thread.
  Forwarder(UniqueFd listener, std::string path, uint32_t guest_port)
      : listener_(std::move(listener)), path_(std::move(path)), guest_port_(guest_port) {
    sigset_t signals;
    ::sigemptyset(&signals);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&signals, signal);
    CHECK(::pthread_sigmask(SIG_BLOCK, &signals, nullptr) == 0);
    signals_.Reset(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    const auto most = static_cast<unsigned>(std::min<uint64_t>(MostConnections(), INT_MAX));
    places_->Reset(::eventfd(most, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE));
    CHECK(signals_.valid() && places_->valid());
  }

  // The exit status.
  int Run() {
    while (true) {
      // While there is no place, those who come wait in the listener's queue.
      uint64_t place = 0;
      if (::read(places_->get(), &place, sizeof place) < 0) {
        if (const int signal = Await(places_->get())) return kExitSignal + signal;
        continue;
      }
      UniqueFd client;
      while (!client.valid()) {
        client.Reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (client.valid() || errno == EINTR || errno == ECONNABORTED) continue;
        if (errno != EAGAIN) return Tell("forward", ErrnoStatus(errno, "accept"));
        if (const int signal = Await(listener_.get())) return kExitSignal + signal;
      }
      Begin(std::move(client));
    }
  }

 private:
  // Until there is something to read; or the signal that ends it, else 0.
  [[nodiscard]] int Await(int fd) const {
    pollfd fds[2] = {{.fd = signals_.get(), .events = POLLIN, .revents = 0},
                     {.fd = fd, .events = POLLIN, .revents = 0}};
    while (::poll(fds, 2, -1) < 0) CHECK(errno == EINTR);
    signalfd_siginfo info;
    if (::read(signals_.get(), &info, sizeof info) != sizeof info) return 0;
    return static_cast<int>(info.ssi_signo);
  }
  void Begin(UniqueFd client) {
    try {
      std::thread([client = std::move(client), path = path_, port = guest_port_,
                   places = places_]() mutable {
        Serve(client, path, port);
        client.Reset();
        const uint64_t one = 1;
        CHECK(::write(places->get(), &one, sizeof one) == sizeof one);
      }).detach();
    } catch (const std::system_error& error) {
      (void)Tell("forward", absl::ResourceExhaustedError(error.what()));
      const uint64_t one = 1;
      CHECK(::write(places_->get(), &one, sizeof one) == sizeof one);
    }
  }

  const UniqueFd listener_;
  const std::string path_;
  const uint32_t guest_port_;
  UniqueFd signals_;
  // Counts connections that there is room for; their threads give them back.
  const std::shared_ptr<UniqueFd> places_ = std::make_shared<UniqueFd>();
};

int Run(const Forward& forward, const std::string& path, const Globals& globals) {
  UnixListener unix_listener;  // has the path removed at the end
  absl::StatusOr<UniqueFd> listener = UniqueFd();
  if (forward.unix_path.empty()) {
    listener = ListenTcp(forward);
  } else {
    absl::StatusOr<UnixListener> made = UnixListener::Create(forward.unix_path);
    if (absl::IsAborted(made.status())) {
      return Tell("forward",
                  absl::AlreadyExistsError(absl::StrCat("listen on ", forward.unix_path,
                                                        ": somebody else listens there")));
    }
    if (!made.ok()) return Tell("forward", made.status());
    unix_listener = *std::move(made);
    listener = unix_listener.TakeSocket();
  }
  if (!listener.ok()) return Tell("forward", listener.status());
  const std::string where = ListensOn(forward, listener->get());
  Forwarder forwarder(*std::move(listener), path, forward.guest_port);
  // Whoever waits for that may connect now.
  if (!Print(globals.json ? absl::StrCat("{\"listening\": ", JsonString(where), "}\n")
                          : absl::StrCat("listening on ", where, "\n"))) {
    return kExitError;
  }
  return forwarder.Run();
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
    return Run(flags->forward, *path, globals);
  });
}

}  // namespace bothy::bothyctl
