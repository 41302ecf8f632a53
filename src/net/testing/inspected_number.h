// A number that a backend's inspection shows, for tests.
#pragma once

#include <cstdint>
#include <string>

#include "net/backend.h"

namespace bothy::net {

// 0 when there is nothing at `path` ("drops/runt").
[[nodiscard]] uint64_t InspectedNumber(const Backend& backend, const std::string& path);

}  // namespace bothy::net
