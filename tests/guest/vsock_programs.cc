#include "tests/guest/vsock_programs.h"

// The kernel's header takes sockaddr from here.
#include <sys/socket.h>
// Not to be sorted before it.
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "tests/guest/first_process.h"

namespace vsock_programs {
namespace {

constexpr size_t kCopyBytes = 65536;

int Usage() {
  fprintf(stderr,
          "usage: vsock-cid | vsock-connect PORT | vsock-echo PORT | vsock-many PORT COUNT\n");
  return 2;
}

int Failure(const char* what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  return 1;
}

sockaddr_vm Address(unsigned cid, const char* port) {
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = cid;
  address.svm_port = static_cast<unsigned>(strtoul(port, nullptr, 0));
  return address;
}

// A connection to the host's port, or -1.
int Connect(const char* port) {
  const sockaddr_vm address = Address(VMADDR_CID_HOST, port);
  const int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

// Prints the guest's own address. Fails as long as there is none: connections can be made once the
// driver has its device, which is some time after sysfs names the two together.
int PrintCid() {
  const int fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Failure("/dev/vsock");
  unsigned cid = VMADDR_CID_ANY;
  if (ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) != 0) return Failure("local CID");
  close(fd);
  if (cid == VMADDR_CID_ANY) {
    fprintf(stderr, "no CID yet\n");
    return 1;
  }
  printf("%u\n", cid);
  return 0;
}

// One turn of a direction; false at its end.
bool Pass(int from, int to) {
  static char bytes[kCopyBytes];
  const ssize_t got = read(from, bytes, sizeof bytes);
  return got > 0 && first_process::WriteAll(to, std::string_view(bytes, static_cast<size_t>(got)));
}

// Standard input to the host, what it says to standard output, until it ends.
int ConnectAndPass(const char* port) {
  const int fd = Connect(port);
  if (fd < 0) return Failure("connect");
  pollfd either[2] = {{.fd = fd, .events = POLLIN, .revents = 0},
                      {.fd = STDIN_FILENO, .events = POLLIN, .revents = 0}};
  while (true) {
    if (poll(either, 2, -1) < 0) return Failure("poll");
    if (either[0].revents != 0 && !Pass(fd, STDOUT_FILENO)) return 0;
    if (either[1].revents != 0 && !Pass(STDIN_FILENO, fd)) {
      shutdown(fd, SHUT_WR);
      either[1].fd = -1;
    }
  }
}

// Gives everybody back what they say, until their end, for ever.
int Echo(const char* port) {
  const sockaddr_vm address = Address(VMADDR_CID_ANY, port);
  const int listener = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 ||
      bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(listener, SOMAXCONN) != 0) {
    return Failure("listen");
  }
  printf("listening\n");
  fflush(stdout);
  // A client that doesn't read has all others wait; those of the tests do.
  std::vector<pollfd> sockets = {{.fd = listener, .events = POLLIN, .revents = 0}};
  while (poll(sockets.data(), sockets.size(), -1) > 0) {
    for (size_t i = sockets.size() - 1; i > 0; --i) {
      if (sockets[i].revents == 0 || Pass(sockets[i].fd, sockets[i].fd)) continue;
      close(sockets[i].fd);
      sockets[i] = sockets.back();
      sockets.pop_back();
    }
    if (sockets[0].revents == 0) continue;
    const int client = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (client >= 0) sockets.push_back({.fd = client, .events = POLLIN, .revents = 0});
  }
  return Failure("poll");
}

// So many connections at once, each of which is to give back what is said on it.
int Many(const char* port, const char* count_text) {
  const size_t count = strtoul(count_text, nullptr, 0);
  std::vector<int> sockets;
  while (sockets.size() < count) {
    const int fd = Connect(port);
    if (fd < 0) return Failure("connect");
    sockets.push_back(fd);
  }
  for (size_t i = 0; i < count; ++i) {
    if (!first_process::WriteAll(sockets[i], std::to_string(i) + "\n")) return Failure("write");
    shutdown(sockets[i], SHUT_WR);
  }
  size_t right = 0;
  for (size_t i = 0; i < count; ++i) {
    std::string text;
    char bytes[64];
    for (ssize_t got = 0; (got = read(sockets[i], bytes, sizeof bytes)) > 0;) {
      text.append(bytes, static_cast<size_t>(got));
    }
    if (text == std::to_string(i) + "\n") ++right;
  }
  printf("%zu of %zu\n", right, count);
  return right == count ? 0 : 1;
}

}  // namespace

int Main(int argc, char** argv) {
  const char* const slash = strrchr(argv[0], '/');
  const std::string_view name = slash != nullptr ? slash + 1 : argv[0];
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
  }
  if (name == "vsock-cid" && argc == 1) return PrintCid();
  if (name == "vsock-connect" && argc == 2) return ConnectAndPass(argv[1]);
  if (name == "vsock-echo" && argc == 2) return Echo(argv[1]);
  if (name == "vsock-many" && argc == 3) return Many(argv[1], argv[2]);
  return Usage();
}

}  // namespace vsock_programs
