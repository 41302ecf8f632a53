// What every translation of a request needs to check a field and to name it in an error.
#pragma once

#include <cstdint>
#include <string>

#include "support/status.h"

namespace bothy::vmservice {

// `path` is the field's, from the request's root: "config.serial_config.ports[1].port".
[[nodiscard]] absl::Status Invalid(const std::string& path, const std::string& problem);
[[nodiscard]] absl::Status NotInThisBuild(const std::string& path, const std::string& what);

absl::Status CheckRange(const std::string& path, uint64_t value, uint64_t low, uint64_t high);
// A path of the host: something, and without a NUL, which the kernel would take for its end.
absl::Status CheckPath(const std::string& path, const std::string& value);

// Without "." and empty components, unless nothing else is left. ".." stays: what it leads to is
// the host's to say.
[[nodiscard]] std::string PlainPath(const std::string& path);

}  // namespace bothy::vmservice
