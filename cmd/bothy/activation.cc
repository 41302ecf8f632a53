#include "activation.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace bothy {
namespace {

constexpr int kFirstPassedFd = 3;  // SD_LISTEN_FDS_START

absl::Status CheckListening(int fd) {
  int domain = 0;
  int type = 0;
  int listening = 0;
  socklen_t size = sizeof(int);
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0 ||
      ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 ||
      ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0) {
    return ErrnoStatus(errno, absl::StrCat("LISTEN_FDS: descriptor ", fd));
  }
  if (domain != AF_UNIX || type != SOCK_STREAM || listening == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("LISTEN_FDS: descriptor ", fd, " is not a listening Unix stream socket"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<UniqueFd>> TakeActivationSockets() {
  const char* pid_text = std::getenv("LISTEN_PID");
  const char* count_text = std::getenv("LISTEN_FDS");
  int64_t pid = 0;
  int count = 0;
  const bool ours = pid_text != nullptr && count_text != nullptr &&
                    absl::SimpleAtoi(pid_text, &pid) && pid == ::getpid();
  const bool counted = ours && absl::SimpleAtoi(count_text, &count);
  ::unsetenv("LISTEN_PID");
  ::unsetenv("LISTEN_FDS");
  ::unsetenv("LISTEN_FDNAMES");
  std::vector<UniqueFd> sockets;
  if (!ours) return sockets;
  if (!counted || count < 0 || count > 1024) {
    return absl::InvalidArgumentError("LISTEN_FDS: not a number of sockets");
  }
  for (int fd = kFirstPassedFd; fd < kFirstPassedFd + count; ++fd) {
    RETURN_IF_ERROR(CheckListening(fd));
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 ||
        ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK) != 0) {
      return ErrnoStatus(errno, absl::StrCat("LISTEN_FDS: descriptor ", fd));
    }
    sockets.emplace_back(fd);
  }
  return sockets;
}

}  // namespace bothy
