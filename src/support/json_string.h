// Text as the inside of a JSON string, whatever it holds.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace bothy {

// `text` with quotes, backslashes and control characters escaped, so that it is also one line, and
// with U+FFFD for bytes that aren't UTF-8. What is longer than `limit` bytes afterwards ends in
// "..."; no escape or character is cut in two.
[[nodiscard]] std::string JsonEscaped(std::string_view text, size_t limit);

}  // namespace bothy
