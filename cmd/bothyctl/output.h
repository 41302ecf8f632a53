// What verbs print on standard output: tables, and colours where somebody looks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace bothy::bothyctl {

enum class Style { kHeading, kError };

// `text` in the style's colours if `fd` is a terminal that has them (TERM isn't "dumb") and
// NO_COLOR isn't set; else as it is.
std::string Paint(std::string_view text, Style style, int fd);

// Rows of cells as aligned columns, two spaces apart; the first row is the heading. Ends with a
// newline. Cells are made harmless for a terminal.
using Row = std::vector<std::string>;
std::string Table(const std::vector<Row>& rows, bool has_heading, int fd);

// Writes to standard output and flushes. False, after an error line, when that fails.
[[nodiscard]] bool Print(std::string_view text);

}  // namespace bothy::bothyctl
