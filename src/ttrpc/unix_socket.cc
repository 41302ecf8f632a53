#include "ttrpc/unix_socket.h"

#include <utility>

namespace bothy::ttrpc {

absl::StatusOr<BoundSocket> ListenUnix(const std::string& path) {
  absl::StatusOr<UnixListener> listener = UnixListener::Create(path);
  if (absl::IsAborted(listener.status())) {
    return absl::AlreadyExistsError(std::string(listener.status().message()));
  }
  if (!listener.ok()) return listener.status();
  return BoundSocket{.fd = listener->TakeSocket(), .file = listener->TakeFile()};
}

}  // namespace bothy::ttrpc
