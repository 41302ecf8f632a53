// Ports of a guest as programs of the host reach them: by hvsocket_config.path.
#pragma once

#include <cstdint>
#include <string>

#include "support/unique_fd.h"

namespace bothy::integration {

// For the guest's shell: drivers come on their own there.
inline constexpr char kAwaitVsockDriver[] = "await 'vsock-cid >/dev/null 2>&1'";

// A program that has asked for `port`. The socket blocks, here and below.
[[nodiscard]] UniqueFd AskForPort(const std::string& path, uint32_t port);
// One that has been told that the guest has accepted.
[[nodiscard]] UniqueFd ConnectToPort(const std::string& path, uint32_t port);
// Sends all of it.
void Say(const UniqueFd& socket, const std::string& text);
// What comes until a newline, with it, or until the end.
[[nodiscard]] std::string Line(const UniqueFd& socket);

}  // namespace bothy::integration
