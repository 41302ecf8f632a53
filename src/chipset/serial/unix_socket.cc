#include "chipset/serial/unix_socket.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "support/log.h"

namespace bothy::chipset {
namespace {

static_assert(sizeof(sockaddr_un::sun_path) == kMaxSocketPath + 1);

// Clients that wait while another one is served.
constexpr int kBacklog = 16;

sockaddr_un AddressOf(const std::string& path) {
  CHECK(path.size() <= kMaxSocketPath);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

absl::StatusOr<UniqueFd> NewSocket() {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return ErrnoStatus(errno, "socket");
  return fd;
}

std::string RandomName() {
  uint64_t random = 0;
  CHECK(::getrandom(&random, sizeof random, 0) == sizeof random);
  return absl::StrCat(".bothy-", absl::Hex(random, absl::kZeroPad16));
}

// A path that fits an address, for `name` in `folder` (with its slash), which `directory` holds.
std::string PathWithin(const std::string& folder, int directory, const std::string& name) {
  if (folder.size() + name.size() <= kMaxSocketPath) return folder + name;
  return absl::StrCat("/proc/self/fd/", directory, "/", name);
}

// connect(2) to a path of at most kMaxSocketPath bytes: 0, or errno.
int Connect(const UniqueFd& socket, const std::string& path) {
  const sockaddr_un address = AddressOf(path);
  return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0
             ? 0
             : errno;
}

// Removes a name in a folder.
class ScopedName {
 public:
  ScopedName(int directory, std::string name) : directory_(directory), name_(std::move(name)) {}
  ScopedName(const ScopedName&) = delete;
  ScopedName& operator=(const ScopedName&) = delete;
  ~ScopedName() { ::unlinkat(directory_, name_.c_str(), 0); }

 private:
  const int directory_;
  const std::string name_;
};

}  // namespace

absl::Status ValidateSocketPath(const std::string& path) {
  if (path.empty()) return absl::InvalidArgumentError("empty socket path");
  if (path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("socket path with a NUL byte inside");
  }
  if (path.size() > kMaxSocketPath) {
    return absl::InvalidArgumentError(absl::StrCat("a socket path of ", path.size(),
                                                   " bytes; Unix sockets allow ", kMaxSocketPath));
  }
  if (path.back() == '/') {
    return absl::InvalidArgumentError(absl::StrCat(path, ": a socket path can't end in a slash"));
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> ConnectUnixSocket(const std::string& path) {
  RETURN_IF_ERROR(ValidateSocketPath(path));
  ASSIGN_OR_RETURN(UniqueFd fd, NewSocket());
  switch (const int error = Connect(fd, path)) {
    case 0:
      return fd;
    case ECONNREFUSED:
      return absl::FailedPreconditionError(absl::StrCat("connect ", path, ": nobody listens"));
    case EPROTOTYPE:
      return absl::FailedPreconditionError(absl::StrCat("connect ", path, ": not a stream socket"));
    case EAGAIN:
      return absl::UnavailableError(
          absl::StrCat("connect ", path, ": too many connections wait there"));
    default:
      return ErrnoStatus(error, absl::StrCat("connect ", path));
  }
}

absl::StatusOr<UnixListener> UnixListener::Create(const std::string& path) {
  RETURN_IF_ERROR(ValidateSocketPath(path));
  const size_t slash = path.rfind('/');
  // With its slash; empty: the working folder.
  const std::string folder = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  UniqueFd directory_fd(
      ::open(folder.empty() ? "." : folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory_fd) return ErrnoStatus(errno, absl::StrCat("open ", folder));
  const int directory = directory_fd.get();

  struct stat existing;
  bool is_stale = false;
  if (::fstatat(directory, name.c_str(), &existing, AT_SYMLINK_NOFOLLOW) == 0) {
    if (!S_ISSOCK(existing.st_mode)) {
      return absl::AlreadyExistsError(absl::StrCat(path, " exists and isn't a socket"));
    }
    ASSIGN_OR_RETURN(const UniqueFd probe, NewSocket());
    switch (const int error = Connect(probe, path)) {
      case 0:
      case EAGAIN:
        return absl::AbortedError(absl::StrCat("somebody else listens on ", path));
      case ECONNREFUSED:
        is_stale = true;
        break;
      case ENOENT:
        break;  // gone meanwhile
      case EPROTOTYPE:
        return absl::AlreadyExistsError(absl::StrCat(path, " exists and isn't a stream socket"));
      default:
        return ErrnoStatus(error, absl::StrCat("connect ", path));
    }
  } else if (errno != ENOENT) {
    return ErrnoStatus(errno, absl::StrCat("stat ", path));
  }

  ASSIGN_OR_RETURN(UniqueFd socket, NewSocket());
  // bind(2) gives the file the mode of the socket, less the umask.
  if (::fchmod(socket.get(), 0600) != 0) {
    return ErrnoStatus(errno, "fchmod of a socket");
  }
  const std::string first_name = RandomName();
  const sockaddr_un address = AddressOf(PathWithin(folder, directory, first_name));
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return ErrnoStatus(errno, absl::StrCat("bind a socket beside ", path));
  }
  const ScopedName remove_first(directory, first_name);
  struct stat bound;
  if (::listen(socket.get(), kBacklog) != 0 ||
      ::fstatat(directory, first_name.c_str(), &bound, AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus(errno, absl::StrCat("listen on ", path));
  }

  if (is_stale) {
    // Moved aside, then looked at again: another server may have replaced it in between.
    const std::string aside = RandomName();
    if (::renameat(directory, name.c_str(), directory, aside.c_str()) == 0) {
      const ScopedName remove_aside(directory, aside);
      absl::StatusOr<UniqueFd> probe = NewSocket();
      if (!probe.ok() || Connect(*probe, PathWithin(folder, directory, aside)) != ECONNREFUSED) {
        if (::linkat(directory, aside.c_str(), directory, name.c_str(), 0) != 0) {
          LogWarning("serial", absl::StrCat(path, ": three servers want this socket at once"));
        }
        return absl::AbortedError(absl::StrCat("somebody else listens on ", path));
      }
    } else if (errno != ENOENT) {
      return ErrnoStatus(errno, absl::StrCat("remove the stale socket ", path));
    }
  }
  // Fails where the name exists, so of two servers that get here one wins.
  if (::linkat(directory, first_name.c_str(), directory, name.c_str(), 0) != 0) {
    if (errno == EEXIST) {
      return absl::AbortedError(absl::StrCat("somebody else binds ", path));
    }
    return ErrnoStatus(errno, absl::StrCat("bind ", path));
  }

  UnixListener listener;
  listener.socket_ = std::move(socket);
  listener.directory_ = std::move(directory_fd);
  listener.name_ = name;
  listener.device_ = bound.st_dev;
  listener.inode_ = bound.st_ino;
  return listener;
}

UnixListener::UnixListener(UnixListener&& other) noexcept
    : socket_(std::move(other.socket_)),
      directory_(std::move(other.directory_)),
      name_(std::move(other.name_)),
      device_(other.device_),
      inode_(other.inode_) {}

UnixListener& UnixListener::operator=(UnixListener&& other) noexcept {
  if (this != &other) {
    RemovePath();
    socket_ = std::move(other.socket_);
    directory_ = std::move(other.directory_);
    name_ = std::move(other.name_);
    device_ = other.device_;
    inode_ = other.inode_;
  }
  return *this;
}

void UnixListener::RemovePath() {
  if (!directory_) return;
  struct stat now;
  if (::fstatat(directory_.get(), name_.c_str(), &now, AT_SYMLINK_NOFOLLOW) == 0 &&
      now.st_dev == device_ && now.st_ino == inode_) {
    ::unlinkat(directory_.get(), name_.c_str(), 0);
  }
  directory_.Reset();
}

}  // namespace bothy::chipset
