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

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include "tests/guest/first_process.h"

namespace vsock_programs {
namespace {

constexpr size_t kCopyBytes = 65536;
constexpr size_t kLoadBytes = 128 * 1024;  // at a time, as iperf3 does

int Usage() {
  fprintf(stderr,
          "usage: vsock-cid | vsock-connect PORT | vsock-echo PORT | vsock-many PORT COUNT | "
          "vsock-load PORT in|out|trip SECONDS\n");
  return 2;
}

int Failure(const char* what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  return 1;
}

// Prints the guest's CID, which there is once its driver is ready: that is some time after sysfs
// shows the device bound to it.
int PrintCid() {
  const int fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
  unsigned cid = VMADDR_CID_ANY;
  if (fd < 0 || ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) != 0) return Failure("/dev/vsock");
  if (cid == VMADDR_CID_ANY || cid == VMADDR_CID_LOCAL) return 1;
  printf("%u\n", cid);
  return 0;
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

uint64_t Nanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// Measures a connection to the benchmark's listener on the host, whom the first byte tells what to
// do: prints Mbit/s of "in" and "out", the median of a byte's round trips in us of "trip". The
// first second isn't counted.
int Load(const char* port, std::string_view load, const char* seconds_text) {
  constexpr uint64_t kWarmUp = 1'000'000'000;
  const uint64_t measured = strtoul(seconds_text, nullptr, 0) * 1'000'000'000;
  if (load != "in" && load != "out" && load != "trip") return Usage();
  const int fd = Connect(port);
  if (fd < 0) return Failure("connect");
  if (!first_process::WriteAll(fd, load.substr(0, 1))) return Failure("write");
  std::vector<char> bytes(load == "trip" ? 1 : kLoadBytes);
  std::vector<uint64_t> trips;
  uint64_t counted = 0;
  const uint64_t begin = Nanoseconds() + kWarmUp;
  uint64_t first = 0;  // when counting began
  for (uint64_t before = Nanoseconds(); before < begin + measured;) {
    ssize_t moved = 0;
    if (load != "in") moved = write(fd, bytes.data(), bytes.size());
    if (load != "out") moved = read(fd, bytes.data(), bytes.size());
    if (moved <= 0) return Failure(load == "out" ? "write" : "read");
    const uint64_t now = Nanoseconds();
    if (first != 0) {
      counted += static_cast<uint64_t>(moved);
      trips.push_back(now - before);
    } else if (now >= begin) {
      first = now;
    }
    before = now;
  }
  const uint64_t took = Nanoseconds() - first;
  if (first == 0 || trips.empty()) return 1;
  std::nth_element(trips.begin(), trips.begin() + static_cast<ptrdiff_t>(trips.size() / 2),
                   trips.end());
  if (load == "trip") {
    printf("%.2f\n", static_cast<double>(trips[trips.size() / 2]) / 1e3);
  } else {
    printf("%.1f\n", static_cast<double>(counted) * 8e3 / static_cast<double>(took));
  }
  return 0;
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
  if (name == "vsock-load" && argc == 4) return Load(argv[1], argv[2], argv[3]);
  return Usage();
}

}  // namespace vsock_programs
