// The host's side of forwarded ports: what a Forward listens on, and whether the host has it to
// give.
#pragma once

#include <netinet/in.h>

#include <vector>

#include "net/user/user_options.h"
#include "support/status.h"

namespace bothy::net {

// InvalidArgument: no such address or port is possible.
absl::StatusOr<sockaddr_in> ListenAddress(const Forward& forward);
// What errno `error` of listening there means.
absl::Status ForwardError(int error, const Forward& forward);

// Whether the host has the ports of `wanted` to give, beside those of `held`, which somebody who
// will let go of them has. Each is taken for a moment. Errors are those of ListenAddress and
// ForwardError.
absl::Status TryForwards(const std::vector<Forward>& wanted, const std::vector<Forward>& held);

}  // namespace bothy::net
