// The two backends that are taps: one that has a name on the host, and one that is made as a port
// of a bridge.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "net/backend.h"
#include "support/io_loop.h"
#include "support/status.h"

namespace bothy::net {

// The tap of that name, made if it isn't there (then it goes with the backend), and brought up
// while the backend is there, if it is down. Errors are those of OpenTap (tap_device.h);
// PermissionDenied also when it is down and the process may not bring it up. A call that fails
// leaves the host as it was.
absl::StatusOr<std::unique_ptr<Backend>> OpenTapBackend(const std::string& name,
                                                        uint16_t queue_pairs, IoLoop& loop);

// A new tap on the bridge whose name or alias is `switch_id` (GUIDs compare as such), with
// `port_id`, unless empty, as its alias and the bridge's MTU. It goes with the backend.
//
// NotFound: no such bridge. InvalidArgument: several, or `port_id` is too long for an alias.
// PermissionDenied: that takes CAP_NET_ADMIN.
absl::StatusOr<std::unique_ptr<Backend>> OpenSwitchPort(const std::string& switch_id,
                                                        const std::string& port_id,
                                                        uint16_t queue_pairs, IoLoop& loop);

}  // namespace bothy::net
