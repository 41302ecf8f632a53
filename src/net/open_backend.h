// What a NIC can be connected to, and how to open it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>

#include "net/backend.h"
#include "net/limited_backend.h"
#include "net/user/user_options.h"
#include "support/io_loop.h"
#include "support/status.h"

namespace bothy::net {

// A tap of the host's, existing or new (tap/open_tap.h).
struct TapOptions {
  std::string name;
  friend bool operator==(const TapOptions&, const TapOptions&) = default;
};
// A port of a bridge (tap/open_tap.h).
struct SwitchOptions {
  std::string switch_id;  // the bridge's name or alias
  std::string port_id;    // the port's alias; may be empty
  friend bool operator==(const SwitchOptions&, const SwitchOptions&) = default;
};

struct BackendConfig {
  std::variant<TapOptions, SwitchOptions, UserOptions> where;
  RateLimits limits;
  friend bool operator==(const BackendConfig&, const BackendConfig&) = default;
};

// With up to `queue_pairs` queue pairs; it may have fewer. On the loop's thread, or before the loop
// first runs; the calls of the host that this makes don't wait. Network devices are those of that
// thread's network namespace. A call that fails leaves the host as it was; errors say what is
// wrong, but not in which field of a request.
absl::StatusOr<std::unique_ptr<Backend>> OpenBackend(const BackendConfig& config,
                                                     uint16_t queue_pairs, IoLoop& loop);

}  // namespace bothy::net
