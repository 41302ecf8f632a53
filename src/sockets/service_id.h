// Service ids of hypervisor sockets: GUIDs, of which one template stands for vsock ports.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "support/status.h"

namespace bothy::sockets {

// The port that a service id "<port as 8 hex digits>-facb-11e6-bd58-64006a7986d3" stands for, in
// either case. InvalidArgument, with what it should look like, for anything else.
absl::StatusOr<uint32_t> PortOfServiceId(std::string_view service_id);
// The other way, in lower case.
[[nodiscard]] std::string ServiceIdOfPort(uint32_t port);

}  // namespace bothy::sockets
