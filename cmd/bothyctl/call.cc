#include "cmd/bothyctl/call.h"

#include "cmd/bothyctl/error_text.h"

namespace bothy::bothyctl {

std::optional<Connection> ConnectOrTell(const Globals& globals, int* status) {
  if (globals.address.empty()) {
    *status = kExitUsage;
    PrintError("which server? Give --address PATH or set BOTHY_ADDRESS");
    return std::nullopt;
  }
  absl::StatusOr<Connection> connection = Connection::Open(globals.address);
  if (!connection.ok()) {
    *status = kExitError;
    PrintError(ErrorLine("connect", connection.status()));
    return std::nullopt;
  }
  return *std::move(connection);
}

int Tell(const std::string& what, const absl::Status& status) {
  PrintError(ErrorLine(what, status));
  return kExitError;
}

}  // namespace bothy::bothyctl
