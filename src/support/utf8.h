// Text from anywhere, for readers who refuse what isn't UTF-8 (protobuf, JSON, Prometheus).
#pragma once

#include <string>
#include <string_view>

namespace bothy {

// `text` with U+FFFD for each byte that belongs to no well-formed sequence (Unicode 15, table 3-7).
[[nodiscard]] std::string ValidUtf8(std::string_view text);

}  // namespace bothy
