#include "support/unix_socket.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "support/check.h"

namespace bothy {
namespace {

static_assert(sizeof(sockaddr_un::sun_path) == kMaxSocketPath + 1);

constexpr mode_t kSocketMode = 0600;

// How often a name may be found taken and then free again; each time a socket came and went.
constexpr int kMaxAttempts = 16;
// Claims that stale claims need (see Place): one for each server that died while it replaced the
// left-over of another.
constexpr int kMaxClaims = 8;

absl::Status CheckPath(const std::string& path) {
  if (path.empty()) return absl::InvalidArgumentError("empty socket path");
  if (path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("socket path with a NUL byte inside");
  }
  if (path.back() == '/') {
    return absl::InvalidArgumentError(absl::StrCat(path, ": a socket path can't end in a slash"));
  }
  return absl::OkStatus();
}

// A checked path, taken apart.
struct Location {
  std::string folder;  // with its slash; empty: the working folder
  std::string name;
  UniqueFd directory;  // the folder
};

absl::StatusOr<Location> Locate(const std::string& path) {
  RETURN_IF_ERROR(CheckPath(path));
  const size_t slash = path.rfind('/');
  Location location;
  location.folder = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  location.name = slash == std::string::npos ? path : path.substr(slash + 1);
  const std::string folder = location.folder.empty() ? "." : location.folder;
  location.directory.Reset(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!location.directory) return ErrnoStatus(errno, absl::StrCat("open ", folder));
  return location;
}

// A path for `name` beside `location` that fits an address, if there is one.
std::string ShortPath(const Location& location, const std::string& name) {
  if (location.folder.size() + name.size() <= kMaxSocketPath) return location.folder + name;
  return absl::StrCat("/proc/self/fd/", location.directory.get(), "/", name);
}

absl::Status CheckFits(const std::string& short_path, const std::string& path) {
  if (short_path.size() <= kMaxSocketPath) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the name of socket ", path, " is too long"));
}

sockaddr_un AddressOf(const std::string& path) {
  CHECK(path.size() <= kMaxSocketPath);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

absl::StatusOr<UniqueFd> NewSocket(int flags) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
  if (!fd) return ErrnoStatus(errno, "socket");
  return fd;
}

// connect(2) to a path that fits: 0, or errno.
int Connect(const UniqueFd& socket, const std::string& path) {
  const sockaddr_un address = AddressOf(path);
  int result;
  do {
    result = ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  } while (result != 0 && errno == EINTR);
  return result == 0 ? 0 : errno;
}

std::string RandomName() {
  uint64_t random = 0;
  CHECK(::getrandom(&random, sizeof random, 0) == sizeof random);
  return absl::StrCat(".bothy-", absl::Hex(random, absl::kZeroPad16));
}

// Removes a name in a folder.
class ScopedName {
 public:
  ScopedName(int directory, std::string name) : directory_(directory), name_(std::move(name)) {}
  ScopedName(const ScopedName&) = delete;
  ScopedName& operator=(const ScopedName&) = delete;
  ~ScopedName() {
    if (!name_.empty()) ::unlinkat(directory_, name_.c_str(), 0);
  }
  // The name isn't ours any more.
  void Forget() { name_.clear(); }

 private:
  const int directory_;
  std::string name_;
};

bool SameFile(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// What stands in the way at a name.
struct StaleSocket {
  UniqueFd fd;  // O_PATH: no other file gets its inode number while this is open; invalid: nothing
  struct stat status = {};
};

// The stale socket at `name`, or nothing; a Status as UnixListener::Create has them for whatever
// may not be replaced. `path` names it in messages.
absl::StatusOr<StaleSocket> FindStale(int directory, const std::string& name,
                                      const std::string& path) {
  StaleSocket found;
  found.fd.Reset(::openat(directory, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!found.fd) {
    if (errno == ENOENT) return StaleSocket();
    return ErrnoStatus(errno, absl::StrCat("open ", path));
  }
  if (::fstat(found.fd.get(), &found.status) != 0) {
    return ErrnoStatus(errno, absl::StrCat("stat ", path));
  }
  if (!S_ISSOCK(found.status.st_mode)) {
    return absl::AlreadyExistsError(absl::StrCat(path, " exists and isn't a socket"));
  }
  ASSIGN_OR_RETURN(const UniqueFd probe, NewSocket(SOCK_NONBLOCK));
  // The very file that was opened, whatever has the name by now.
  switch (const int error = Connect(probe, absl::StrCat("/proc/self/fd/", found.fd.get()))) {
    case ECONNREFUSED:
      return found;
    case 0:
    case EAGAIN:  // its backlog is full
      return absl::AbortedError(absl::StrCat("somebody else listens on ", path));
    case EPROTOTYPE:
      return absl::AlreadyExistsError(absl::StrCat(path, " exists and isn't a stream socket"));
    default:
      return ErrnoStatus(error, absl::StrCat("probe ", path, " through /proc/self/fd"));
  }
}

// Gives the listening socket at `own` the further name `name`, where there may be a stale socket.
//
// Where nothing is, link(2) decides between several that try: it fails where a name exists. A stale
// socket can't be removed first, though: there is no "unlink if it is still that file", and whoever
// unlinked or moved late would hit the socket of whoever came before. So only who has claimed the
// stale file may replace it. A claim is a name that follows from the file's inode number, and what
// is there is the claimer's own listening socket: it is made with link(2), too, so there is one at
// a time, and when its owner dies it is a stale socket itself, to be replaced in the same way, by a
// claim of its own. The claimer looks whether the stale file is still there, and if so renames the
// claim over it, which takes the place and gives up the claim in one step.
absl::Status Place(int directory, const std::string& own, const std::string& name,
                   const std::string& path, int claims) {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    if (::linkat(directory, own.c_str(), directory, name.c_str(), 0) == 0) return absl::OkStatus();
    if (errno != EEXIST) return ErrnoStatus(errno, absl::StrCat("bind ", path));
    ASSIGN_OR_RETURN(const StaleSocket stale, FindStale(directory, name, path));
    if (!stale.fd) continue;

    const std::string replacing = absl::StrCat("replace the stale socket ", path);
    if (claims == kMaxClaims) {
      return absl::AbortedError(absl::StrCat(replacing, ": too many others tried and died"));
    }
    const std::string claim = absl::StrCat(".bothy-replaces-", absl::Hex(stale.status.st_ino));
    RETURN_IF_ERROR(
        WithContext(Place(directory, own, claim, "its claim " + claim, claims + 1), replacing));
    ScopedName remove_claim(directory, claim);
    struct stat now;
    if (::fstatat(directory, name.c_str(), &now, AT_SYMLINK_NOFOLLOW) != 0 ||
        !SameFile(now, stale.status)) {
      return absl::AbortedError(absl::StrCat("somebody else has just replaced ", path));
    }
    if (::renameat(directory, claim.c_str(), directory, name.c_str()) != 0) {
      return ErrnoStatus(errno, replacing);
    }
    remove_claim.Forget();
    return absl::OkStatus();
  }
  return absl::AbortedError(absl::StrCat("others bind and remove ", path, " all the time"));
}

}  // namespace

absl::Status ValidateSocketPath(const std::string& path) {
  RETURN_IF_ERROR(CheckPath(path));
  if (path.size() > kMaxSocketPath) {
    return absl::InvalidArgumentError(absl::StrCat("a socket path of ", path.size(),
                                                   " bytes; Unix sockets allow ", kMaxSocketPath));
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> ConnectUnix(const std::string& path, ConnectMode mode) {
  RETURN_IF_ERROR(CheckPath(path));
  Location location;  // keeps a detour open
  std::string short_path = path;
  if (path.size() > kMaxSocketPath) {
    ASSIGN_OR_RETURN(location, Locate(path));
    short_path = ShortPath(location, location.name);
    RETURN_IF_ERROR(CheckFits(short_path, path));
  }
  ASSIGN_OR_RETURN(UniqueFd fd, NewSocket(mode == ConnectMode::kNonBlocking ? SOCK_NONBLOCK : 0));
  switch (const int error = Connect(fd, short_path)) {
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

SocketFile& SocketFile::operator=(SocketFile&& other) noexcept {
  if (this != &other) {
    Remove();
    directory_ = std::move(other.directory_);
    name_ = std::move(other.name_);
    device_ = other.device_;
    inode_ = other.inode_;
  }
  return *this;
}

void SocketFile::Remove() {
  if (!directory_) return;
  struct stat now;
  if (::fstatat(directory_.get(), name_.c_str(), &now, AT_SYMLINK_NOFOLLOW) == 0 &&
      now.st_dev == device_ && now.st_ino == inode_) {
    ::unlinkat(directory_.get(), name_.c_str(), 0);
  }
  directory_.Reset();
}

absl::StatusOr<UnixListener> UnixListener::Create(const std::string& path, int backlog) {
  ASSIGN_OR_RETURN(Location location, Locate(path));
  RETURN_IF_ERROR(CheckFits(ShortPath(location, location.name), path));
  const int directory = location.directory.get();
  // Says what is in the way even where no file may be made.
  RETURN_IF_ERROR(FindStale(directory, location.name, path).status());

  ASSIGN_OR_RETURN(UniqueFd socket, NewSocket(SOCK_NONBLOCK));
  // bind(2) gives the file the mode of the socket, less the umask: it is nobody else's from the
  // start, and this process's umask stays as it is.
  if (::fchmod(socket.get(), kSocketMode) != 0) return ErrnoStatus(errno, "fchmod of a socket");
  const std::string own = RandomName();
  const sockaddr_un address = AddressOf(ShortPath(location, own));
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return ErrnoStatus(errno, absl::StrCat("bind a socket beside ", path));
  }
  const ScopedName remove_own(directory, own);
  struct stat bound;
  if (::listen(socket.get(), backlog) != 0 ||
      ::fstatat(directory, own.c_str(), &bound, AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus(errno, absl::StrCat("listen on ", path));
  }
  RETURN_IF_ERROR(Place(directory, own, location.name, path, 0));
  // The folder stays open in what is returned, for remove_own.
  return UnixListener(std::move(socket), SocketFile(std::move(location.directory), location.name,
                                                    bound.st_dev, bound.st_ino));
}

}  // namespace bothy
