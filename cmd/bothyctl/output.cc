#include "cmd/bothyctl/output.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/error_text.h"

namespace bothy::bothyctl {
namespace {

bool HasColours(int fd) {
  const char* const no_color = std::getenv("NO_COLOR");
  if (no_color != nullptr && *no_color != '\0') return false;
  const char* const terminal = std::getenv("TERM");
  return terminal != nullptr && std::string_view(terminal) != "dumb" && ::isatty(fd) == 1;
}

}  // namespace

std::string Paint(std::string_view text, Style style, int fd) {
  if (!HasColours(fd)) return std::string(text);
  return absl::StrCat(style == Style::kError ? "\033[1;31m" : "\033[1m", std::string(text),
                      "\033[0m");
}

std::string Table(const std::vector<Row>& rows, bool has_heading, int fd) {
  std::vector<Row> safe = rows;
  std::vector<size_t> widths;
  for (Row& row : safe) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) {
      row[i] = OneLine(row[i]);
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string text;
  for (size_t n = 0; n < safe.size(); ++n) {
    std::string line;
    for (size_t i = 0; i < safe[n].size(); ++i) {
      line += safe[n][i];
      if (i + 1 < safe[n].size()) line.append(widths[i] + 2 - safe[n][i].size(), ' ');
    }
    absl::StrAppend(&text, n == 0 && has_heading ? Paint(line, Style::kHeading, fd) : line, "\n");
  }
  return text;
}

bool Print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) {
    return true;
  }
  PrintError(absl::StrCat("standard output: ", std::strerror(errno)));
  return false;
}

}  // namespace bothy::bothyctl
