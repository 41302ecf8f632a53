// A backend whose frames are held to a rate, in each direction, over all of its queues together.
//
// What the guest sends waits in its queue, and what it would receive waits in the host's, where TCP
// notices and adapts. The kernel's data path can't be held back like that, so such a backend has
// none: its queues' tap_fd is -1.
#pragma once

#include <cstdint>
#include <memory>

#include "net/backend.h"
#include "net/rate_limit.h"
#include "support/io_loop.h"
#include "support/status.h"

namespace bothy::net {

// In bits of whole frames a second, as the guest sees the directions; 0: no limit.
struct RateLimits {
  uint64_t receive_bps = 0;
  uint64_t send_bps = 0;

  friend bool operator==(const RateLimits&, const RateLimits&) = default;
};

// `clock` is for tests; empty: CLOCK_MONOTONIC.
absl::StatusOr<std::unique_ptr<Backend>> LimitBackend(std::unique_ptr<Backend> backend,
                                                      const RateLimits& limits, IoLoop& loop,
                                                      RateLimit::Clock clock = nullptr);

}  // namespace bothy::net
