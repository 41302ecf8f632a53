// The host's end of the benchmark of sockets to a guest:
//
//   bench_vsock PATH PORT
//
// listens on the Unix socket PATH_PORT, where a guest of bothy's gets that connects to PORT, and on
// the host's vsock PORT, where one gets whose sockets the kernel carries (vhost-vsock). Prints
// "listening" and serves for ever. The first byte on a connection says what is to be done: 'i':
// send, 'o': receive, 't': give each byte back.

// The kernel's header takes sockaddr from here.
#include <sys/socket.h>
// Not to be sorted before it.
#include <linux/vm_sockets.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bench/process.h"
#include "support/unix_socket.h"

namespace bothy::bench {
namespace {

// Both ways as much as iperf3 has by default.
constexpr size_t kLoadBytes = 128 * 1024;

UniqueFd ListenVsock(uint32_t port) {
  UniqueFd socket(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_ANY;
  address.svm_port = port;
  if (!socket.valid() ||
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(socket.get(), SOMAXCONN) != 0) {
    Fail(std::string("vsock: ") + std::strerror(errno));
  }
  return socket;
}

void Serve(const UniqueFd& client) {
  char load = 0;
  if (::read(client.get(), &load, 1) != 1) return;
  std::vector<char> bytes(load == 't' ? 1 : kLoadBytes);
  while (true) {
    if (load != 'i' && ::read(client.get(), bytes.data(), bytes.size()) <= 0) return;
    if (load != 'o' && ::write(client.get(), bytes.data(), bytes.size()) <= 0) return;
  }
}

int Main(const std::vector<std::string>& words) {
  if (words.size() != 2) Fail("usage: bench_vsock PATH PORT");
  (void)std::signal(SIGPIPE, SIG_IGN);
  auto listener = Require(UnixListener::Create(words[0] + "_" + words[1]), "listen");
  const UniqueFd unix_socket = listener.TakeSocket();
  const UniqueFd vsock = ListenVsock(static_cast<uint32_t>(std::stoul(words[1])));
  std::puts("listening");
  std::fflush(stdout);
  std::array<pollfd, 2> either = {{{.fd = unix_socket.get(), .events = POLLIN, .revents = 0},
                                   {.fd = vsock.get(), .events = POLLIN, .revents = 0}}};
  while (::poll(either.data(), either.size(), -1) > 0) {
    for (const pollfd& ready : either) {
      if (ready.revents == 0) continue;
      UniqueFd client(::accept4(ready.fd, nullptr, nullptr, SOCK_CLOEXEC));
      if (client.valid()) std::thread([client = std::move(client)] { Serve(client); }).detach();
    }
  }
  return 1;
}

}  // namespace
}  // namespace bothy::bench

int main(int argc, char** argv) {
  return bothy::bench::Main(std::vector<std::string>(argv + 1, argv + argc));
}
