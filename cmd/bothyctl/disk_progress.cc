#include "cmd/bothyctl/disk_progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cmd/bothyctl/quantities.h"

namespace bothy::bothyctl {
namespace {

constexpr auto kQuietTime = std::chrono::seconds(2);
constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr size_t kUsualColumns = 80;
constexpr size_t kBarColumns = 30;

bool CanRedraw() {
  const char* const terminal = std::getenv("TERM");
  return terminal != nullptr && std::string_view(terminal) != "dumb" &&
         ::isatty(STDERR_FILENO) == 1;
}

size_t Columns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kUsualColumns;
  return size.ws_col;
}

uint64_t Percent(uint64_t done, uint64_t total) {
  if (total == 0) return 100;
  return static_cast<uint64_t>(100.0 * static_cast<double>(done) / static_cast<double>(total));
}

}  // namespace

DiskProgress::DiskProgress(std::string what)
    : what_(std::move(what)),
      terminal_(CanRedraw()),
      begin_(Clock::now()),
      next_(begin_ + kQuietTime) {}

std::string DiskProgress::Bar(const std::string& what, uint64_t done, uint64_t total,
                              std::chrono::duration<double> elapsed, size_t columns) {
  done = std::min(done, total);
  const double part = total == 0 ? 1 : static_cast<double>(done) / static_cast<double>(total);
  const auto filled = static_cast<size_t>(part * kBarColumns);
  std::string left;
  if (done != 0 && done < total) {
    left = absl::StrFormat(", %.0f s left", elapsed.count() * (1 - part) / part);
  }
  const std::string percent = absl::StrCat(Percent(done, total), " %");
  const std::string amounts = absl::StrCat(", ", FormatBytes(done), " of ", FormatBytes(total));
  const std::string bar =
      absl::StrCat("[", std::string(filled, '#'), std::string(kBarColumns - filled, ' '), "] ");
  // What matters least goes first when there is no room.
  std::string line = absl::StrCat(what, " ", bar, percent, amounts, left);
  if (line.size() > columns) line = absl::StrCat(what, " ", bar, percent, left);
  if (line.size() > columns) line = absl::StrCat(what, " ", percent);
  return line.substr(0, columns);
}

void DiskProgress::Update(uint64_t done, uint64_t total) {
  const Clock::time_point now = Clock::now();
  if (now < next_) return;
  if (terminal_) {
    next_ = now + kRedraw;
    drawn_ = true;
    const std::string bar = Bar(what_, done, total, now - begin_, Columns() - 1);
    std::fprintf(stderr, "\r%s\033[K", bar.c_str());
    return;
  }
  const uint64_t tenth = Percent(done, total) / 10;
  if (tenth < next_tenth_) return;
  next_tenth_ = tenth + 1;
  std::fprintf(stderr, "%s: %d %%\n", what_.c_str(), static_cast<int>(tenth * 10));
}

void DiskProgress::Clear() {
  if (!std::exchange(drawn_, false)) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
}

}  // namespace bothy::bothyctl
