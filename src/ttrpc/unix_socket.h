// The path a server serves on, with statuses for people who start servers; see
// support/unix_socket.h for how.
#pragma once

#include <string>

#include "support/status.h"
#include "support/unique_fd.h"
#include "support/unix_socket.h"

namespace bothy::ttrpc {

using ::bothy::SocketFile;

struct BoundSocket {
  UniqueFd fd;  // listening, non-blocking, close-on-exec
  SocketFile file;
};

// Listens on `path`, mode 0600 from the first moment; a socket file that nobody answers on is
// replaced. Of several servers that start at once one succeeds. AlreadyExists when another process
// answers there or is just taking the path, or when it isn't a stream socket; else as
// UnixListener::Create.
absl::StatusOr<BoundSocket> ListenUnix(const std::string& path);

}  // namespace bothy::ttrpc
