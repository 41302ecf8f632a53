#include "net/open_backend.h"

#include <type_traits>
#include <utility>

#include "net/tap/open_tap.h"
#include "net/user/user_backend.h"

namespace bothy::net {

absl::StatusOr<std::unique_ptr<Backend>> OpenBackend(const BackendConfig& config,
                                                     uint16_t queue_pairs, IoLoop& loop) {
  absl::StatusOr<std::unique_ptr<Backend>> backend = std::visit(
      [&](const auto& where) {
        using Where = std::decay_t<decltype(where)>;
        if constexpr (std::is_same_v<Where, TapOptions>) {
          return OpenTapBackend(where.name, queue_pairs, loop);
        } else if constexpr (std::is_same_v<Where, SwitchOptions>) {
          return OpenSwitchPort(where.switch_id, where.port_id, queue_pairs, loop);
        } else {
          return OpenUserBackend(where, loop);
        }
      },
      config.where);
  if (!backend.ok() || config.limits == RateLimits{}) return backend;
  return LimitBackend(*std::move(backend), config.limits, loop);
}

}  // namespace bothy::net
