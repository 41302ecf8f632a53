#include "cmd/bothyctl/screen_text.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace bothy::bothyctl {
namespace {

bool ContinuesCharacter(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

std::string Cut(std::string_view line, size_t columns) {
  if (line.size() <= columns) return std::string(line);
  while (columns > 0 && ContinuesCharacter(line[columns])) --columns;
  return std::string(line.substr(0, columns));
}

}  // namespace

std::string CutToSize(std::string_view text, const ScreenSize& size) {
  const auto lines = static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  const bool fits = lines <= size.rows;
  const size_t shown = fits ? lines : size.rows - std::min<size_t>(size.rows, 1);
  std::string cut;
  for (size_t i = 0; i < shown; ++i) {
    const std::string_view line = text.substr(0, text.find('\n'));
    absl::StrAppend(&cut, Cut(line, size.columns), "\n");
    text.remove_prefix(line.size() + 1);
  }
  if (fits || size.rows == 0) return cut;
  return absl::StrCat(cut, Cut(absl::StrCat("... ", lines - shown, " more lines"), size.columns),
                      "\n");
}

}  // namespace bothy::bothyctl
