// Text that is to fit on a terminal's screen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace bothy::bothyctl {

struct ScreenSize {
  size_t columns = 80;
  size_t rows = SIZE_MAX;
};

// The first of `text`'s lines, each with a newline: as many as there are rows, each cut to the
// width. When lines are left out the last row says how many. A line is cut at a whole character
// (UTF-8) and by its bytes, of which no character has fewer than columns: it may be shorter than it
// could be, never wider.
[[nodiscard]] std::string CutToSize(std::string_view text, const ScreenSize& size);

}  // namespace bothy::bothyctl
