// Unix stream sockets named by a path: connecting without blocking, and listening in a way that
// never takes a path from somebody who is using it.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <utility>

#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy::chipset {

// The longest path that fits sockaddr_un, in bytes.
inline constexpr size_t kMaxSocketPath = 107;

// InvalidArgument, naming the reason, for a path that can't name a socket: empty, too long, with a
// NUL inside, or ending in a slash.
absl::Status ValidateSocketPath(const std::string& path);

// A connected, non-blocking stream socket. Never blocks.
//   NotFound            nothing is at `path`
//   FailedPrecondition  a socket that nobody listens on, or something that isn't a stream socket
//   Unavailable         somebody listens, whose backlog is full
//   PermissionDenied    as the host says
absl::StatusOr<UniqueFd> ConnectUnixSocket(const std::string& path);

// A socket that listens on a path, mode 0600, and removes the path when it is destroyed, unless
// something else has taken its place.
//
// The path appears with somebody listening behind it already: who finds a socket there that refuses
// has found a stale one. Not thread-safe.
class UnixListener {
 public:
  // Replaces a stale socket. Leaves `path` alone and returns
  //   AlreadyExists  when something is there that isn't a stream socket
  //   Aborted        when somebody listens there, or came first while this tried: look again
  //   NotFound       when its folder isn't there
  static absl::StatusOr<UnixListener> Create(const std::string& path);
  UnixListener() = default;
  UnixListener(UnixListener&& other) noexcept;
  UnixListener& operator=(UnixListener&& other) noexcept;
  ~UnixListener() { RemovePath(); }

  [[nodiscard]] bool valid() const { return socket_.valid(); }
  // Gives up the listening socket, not the path.
  [[nodiscard]] UniqueFd TakeSocket() { return std::move(socket_); }
  // Removes the path now.
  void RemovePath();

 private:
  UniqueFd socket_;     // non-blocking
  UniqueFd directory_;  // holds name_; invalid: there is no path to remove
  std::string name_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace bothy::chipset
