// Sockets passed by systemd (sd_listen_fds(3)): LISTEN_PID, LISTEN_FDS.
#pragma once

#include <vector>

#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy {

// The listening Unix stream sockets that were passed to this process; none is no error. Takes the
// variables out of the environment, so that no child believes they are its own. Call once, before
// threads.
absl::StatusOr<std::vector<UniqueFd>> TakeActivationSockets();

}  // namespace bothy
