// Unix stream sockets named by a path: connecting, and listening in a way that never takes a path
// from somebody who is using it.
//
// Paths longer than sockaddr_un has room for work as long as their last component fits: their
// folder is reached through /proc/self/fd then. Replacing a stale socket takes /proc, too.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <cstddef>
#include <string>
#include <utility>

#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy {

// The longest path that fits sockaddr_un, in bytes.
inline constexpr size_t kMaxSocketPath = 107;

// For paths that anybody must be able to connect to without a detour. InvalidArgument, naming the
// reason, for a path that can't name a socket: empty, longer than kMaxSocketPath, with a NUL
// inside, or ending in a slash.
absl::Status ValidateSocketPath(const std::string& path);

enum class ConnectMode {
  kBlocking,     // waits while the backlog is full; the socket blocks afterwards
  kNonBlocking,  // never waits; the socket doesn't block either
};

// A connected stream socket.
//   InvalidArgument     a path that can't name a socket
//   NotFound            nothing is at `path`
//   FailedPrecondition  a socket that nobody listens on, or something that isn't a stream socket
//   Unavailable         somebody listens, whose backlog is full (kNonBlocking)
//   PermissionDenied    as the host says
absl::StatusOr<UniqueFd> ConnectUnix(const std::string& path, ConnectMode mode);

// A socket's file; removed on destruction, unless it isn't the same file any more. Not thread-safe.
class SocketFile {
 public:
  SocketFile() = default;
  // The file `name` in `directory`, which `device` and `inode` tell from one that somebody else put
  // in its place.
  SocketFile(UniqueFd directory, std::string name, dev_t device, ino_t inode)
      : directory_(std::move(directory)), name_(std::move(name)), device_(device), inode_(inode) {}
  SocketFile(SocketFile&& other) noexcept = default;
  SocketFile& operator=(SocketFile&& other) noexcept;
  ~SocketFile() { Remove(); }

  // Removes the file now. Best before the socket is closed: then nobody is about to replace it.
  void Remove();

 private:
  UniqueFd directory_;  // invalid: there is no file to remove
  std::string name_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

// A socket that listens on a path, mode 0600, and its file.
//
// The path appears with somebody listening behind it already: who finds a socket there that refuses
// has found a stale one. Of several that replace one stale socket at once exactly one succeeds, and
// a socket that somebody listens on is never moved or removed, not even for a moment; no lock that
// others could hold is involved. A process that dies in between leaves at most a stale file named
// ".bothy-…" beside the path, which is in nobody's way. Not thread-safe.
class UnixListener {
 public:
  // Replaces a stale socket; never blocks. Leaves `path` alone and returns
  //   InvalidArgument  for a path that can't name a socket
  //   AlreadyExists    when something is there that isn't a stream socket
  //   Aborted          when somebody listens there, or came first while this tried: look again
  //   NotFound         when its folder isn't there
  // `backlog`: connections that wait to be accepted, see listen(2).
  static absl::StatusOr<UnixListener> Create(const std::string& path, int backlog = SOMAXCONN);
  UnixListener() = default;
  UnixListener(UnixListener&& other) noexcept = default;
  UnixListener& operator=(UnixListener&& other) noexcept = default;
  ~UnixListener() { RemovePath(); }

  [[nodiscard]] bool valid() const { return socket_.valid(); }
  // Gives up the listening socket (non-blocking, close-on-exec), not the path.
  [[nodiscard]] UniqueFd TakeSocket() { return std::move(socket_); }
  // Gives up the path to be removed.
  [[nodiscard]] SocketFile TakeFile() { return std::move(file_); }
  // Removes the path now.
  void RemovePath() { file_.Remove(); }

 private:
  UnixListener(UniqueFd socket, SocketFile file)
      : file_(std::move(file)), socket_(std::move(socket)) {}

  SocketFile
      file_;  // before the socket, for the assignment: a file goes before its socket is closed
  UniqueFd socket_;
};

}  // namespace bothy
