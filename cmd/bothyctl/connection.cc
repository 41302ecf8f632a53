#include "cmd/bothyctl/connection.h"

#include <utility>

namespace bothy::bothyctl {

absl::StatusOr<Connection> Connection::Open(const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<ttrpc::Client> client, ttrpc::Client::Connect(path));
  return Connection(std::move(client));
}

}  // namespace bothy::bothyctl
