#include "ttrpc/unix_socket.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/status.h"

namespace bothy::ttrpc {
namespace {

constexpr mode_t kSocketMode = 0600;
constexpr int kBacklog = SOMAXCONN;
constexpr std::chrono::milliseconds kLockPatience(1000);
constexpr std::chrono::milliseconds kLockInterval(10);

// A path as bind(2) and connect(2) take it; `directory` keeps a detour alive.
struct Address {
  sockaddr_un storage = {};
  socklen_t size = 0;
  UniqueFd directory;

  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::StatusOr<Address> AddressOf(const std::string& path) {
  if (path.empty()) return absl::InvalidArgumentError("the socket's path is empty");
  if (path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("the socket's path contains a NUL");
  }
  Address address;
  address.storage.sun_family = AF_UNIX;
  std::string name = path;
  if (name.size() >= sizeof address.storage.sun_path) {
    const std::string directory = DirectoryOf(path);
    address.directory.Reset(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!address.directory.valid()) return ErrnoStatus(errno, "open " + directory);
    name = absl::StrCat("/proc/self/fd/", address.directory.get(), "/",
                        path.substr(path.rfind('/') + 1));
    if (name.size() >= sizeof address.storage.sun_path) {
      return absl::InvalidArgumentError(absl::StrCat("the name of socket ", path, " is too long"));
    }
  }
  std::memcpy(address.storage.sun_path, name.data(), name.size());
  address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() + 1);
  return address;
}

absl::StatusOr<UniqueFd> StreamSocket(int flags) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
  if (!fd.valid()) return ErrnoStatus(errno, "socket(AF_UNIX)");
  return fd;
}

int Connect(int fd, const Address& address) {
  int result;
  do {
    result = ::connect(fd, address.get(), address.size);
  } while (result != 0 && errno == EINTR);
  return result == 0 ? 0 : errno;
}

// Keeps other servers out of `directory`'s sockets until the descriptor is closed. A directory that
// may not be opened for reading stays unlocked.
absl::StatusOr<UniqueFd> LockDirectory(const std::string& directory) {
  UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == EACCES) return UniqueFd();
    return ErrnoStatus(errno, "open " + directory);
  }
  // Not a blocking flock: in a directory like /tmp anybody can hold the lock for ever.
  const auto give_up = std::chrono::steady_clock::now() + kLockPatience;
  while (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "lock " + directory);
    if (std::chrono::steady_clock::now() > give_up) {
      return absl::FailedPreconditionError(
          absl::StrCat("directory ", directory, " is locked by another process"));
    }
    std::this_thread::sleep_for(kLockInterval);
  }
  return fd;
}

// Makes room at `path`: nothing there, or a socket that nobody answers on, which is removed.
absl::Status RemoveStale(const std::string& path, const Address& address) {
  struct stat found;
  if (::lstat(path.c_str(), &found) != 0) {
    return errno == ENOENT ? absl::OkStatus() : ErrnoStatus(errno, "stat " + path);
  }
  if (!S_ISSOCK(found.st_mode)) {
    return absl::AlreadyExistsError(path + " exists and isn't a socket");
  }
  ASSIGN_OR_RETURN(const UniqueFd probe, StreamSocket(SOCK_NONBLOCK));
  switch (const int error = Connect(probe.get(), address); error) {
    case ECONNREFUSED:
      break;
    case ENOENT:
      return absl::OkStatus();
    case 0:
    case EAGAIN:      // its backlog is full
    case EPROTOTYPE:  // a live socket of another type
      return absl::AlreadyExistsError("another process answers on " + path);
    default:
      return ErrnoStatus(error, "probe socket " + path);
  }
  struct stat now;
  if (::lstat(path.c_str(), &now) != 0) {
    return errno == ENOENT ? absl::OkStatus() : ErrnoStatus(errno, "stat " + path);
  }
  if (now.st_dev != found.st_dev || now.st_ino != found.st_ino) {
    return absl::AlreadyExistsError("another process has just taken " + path);
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, "remove stale socket " + path);
  }
  return absl::OkStatus();
}

}  // namespace

SocketFile& SocketFile::operator=(SocketFile&& other) noexcept {
  if (this != &other) {
    Remove();
    path_ = std::exchange(other.path_, {});
    device_ = other.device_;
    inode_ = other.inode_;
  }
  return *this;
}

void SocketFile::Remove() {
  if (path_.empty()) return;
  struct stat found;
  if (::lstat(path_.c_str(), &found) == 0 && found.st_dev == device_ && found.st_ino == inode_) {
    ::unlink(path_.c_str());
  }
  path_.clear();
}

absl::StatusOr<BoundSocket> ListenUnix(const std::string& path) {
  ASSIGN_OR_RETURN(const Address address, AddressOf(path));
  ASSIGN_OR_RETURN(const UniqueFd lock, LockDirectory(DirectoryOf(path)));
  RETURN_IF_ERROR(RemoveStale(path, address));

  BoundSocket bound;
  ASSIGN_OR_RETURN(bound.fd, StreamSocket(SOCK_NONBLOCK));
  // The mode of the descriptor's inode is what bind(2) gives the file (less the umask): it is
  // nobody else's from the start, and this process's umask stays as it is.
  if (::fchmod(bound.fd.get(), kSocketMode) != 0) return ErrnoStatus(errno, "fchmod of a socket");
  if (::bind(bound.fd.get(), address.get(), address.size) != 0) {
    if (errno == EADDRINUSE) {
      return absl::AlreadyExistsError("another process has just taken " + path);
    }
    return ErrnoStatus(errno, "bind " + path);
  }
  struct stat made;
  if (::lstat(path.c_str(), &made) != 0) return ErrnoStatus(errno, "stat " + path);
  bound.file = SocketFile(path, made.st_dev, made.st_ino);
  if (::listen(bound.fd.get(), kBacklog) != 0) return ErrnoStatus(errno, "listen on " + path);
  return bound;
}

absl::StatusOr<UniqueFd> ConnectUnix(const std::string& path) {
  ASSIGN_OR_RETURN(const Address address, AddressOf(path));
  ASSIGN_OR_RETURN(UniqueFd fd, StreamSocket(0));
  switch (const int error = Connect(fd.get(), address); error) {
    case 0:
      return fd;
    case ECONNREFUSED:
      return absl::UnavailableError("nobody listens on " + path);
    default:
      return ErrnoStatus(error, "connect to " + path);
  }
}

}  // namespace bothy::ttrpc
