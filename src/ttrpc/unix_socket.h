// Unix stream sockets by path: the server's end with its stale-socket rules, and the client's.
//
// Paths longer than sockaddr_un has room for work as long as their last component fits: the
// directory is reached through /proc/self/fd then.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "support/unique_fd.h"

namespace bothy::ttrpc {

// A socket's file; removed on destruction, unless it isn't the same file any more.
class SocketFile {
 public:
  SocketFile() = default;
  // `device` and `inode` tell the file from one that somebody else put in its place.
  SocketFile(std::string path, dev_t device, ino_t inode)
      : path_(std::move(path)), device_(device), inode_(inode) {}
  SocketFile(SocketFile&& other) noexcept { *this = std::move(other); }
  SocketFile& operator=(SocketFile&& other) noexcept;
  ~SocketFile() { Remove(); }

  void Remove();
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;  // empty: none
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

struct BoundSocket {
  UniqueFd fd;  // listening, non-blocking, close-on-exec
  SocketFile file;
};

// Binds `path`, mode 0600 from the first moment, and listens.
// A socket file that nobody answers on is replaced; two servers that start at once can't both
// replace it (the directory is locked meanwhile). AlreadyExists when a process answers on it or
// when the path isn't a socket; FailedPrecondition when the directory stays locked by somebody else
// for a second; InvalidArgument for an empty or too long path; else the system's error.
absl::StatusOr<BoundSocket> ListenUnix(const std::string& path);

// Connects to `path`. NotFound: no such file; Unavailable: nobody listens; else the system's error.
absl::StatusOr<UniqueFd> ConnectUnix(const std::string& path);

}  // namespace bothy::ttrpc
