// User-mode networking: NAT in this process, over the host's ordinary sockets, for which it needs
// no privileges. libslirp is the router, DHCP server and name-server relay that the guest sees.
#pragma once

#include <memory>

#include "net/backend.h"
#include "net/user/user_options.h"
#include "support/io_loop.h"
#include "support/status.h"

namespace bothy::net {

// AlreadyExists: a port of the host is taken. PermissionDenied: it is one of those below 1024.
// InvalidArgument: no such network, address or MTU. FailedPrecondition: the host has no libslirp.
absl::StatusOr<std::unique_ptr<Backend>> OpenUserBackend(const UserOptions& options, IoLoop& loop);

}  // namespace bothy::net
