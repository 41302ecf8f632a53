#include "disk/windows_path.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/str_cat.h"

namespace bothy::disk {
namespace {

// Before a path that Windows shall take as it is.
constexpr std::string_view kExtendedPrefix = R"(\\?\)";

bool BeginsWithDrive(std::string_view path) {
  return path.size() >= 2 && std::isalpha(static_cast<unsigned char>(path[0])) != 0 &&
         path[1] == ':';
}

}  // namespace

std::string PosixPath(std::string_view spelled) {
  bool absolute = false;
  if (spelled.starts_with(kExtendedPrefix)) {
    absolute = true;
    spelled.remove_prefix(kExtendedPrefix.size());
    if (spelled.starts_with("Volume{")) {
      spelled.remove_prefix(std::min(spelled.find('\\'), spelled.size()));
    } else if (spelled.starts_with(R"(UNC\)")) {
      spelled.remove_prefix(3);
    }
  }
  if (BeginsWithDrive(spelled)) {
    absolute = true;
    spelled.remove_prefix(2);
  }
  std::string path(spelled);
  std::ranges::replace(path, '\\', '/');
  while (path.starts_with("//")) path.erase(0, 1);
  if (absolute && !path.starts_with("/")) path = absl::StrCat("/", path);
  return path;
}

absl::StatusOr<std::string> WindowsPath(std::string_view posix) {
  if (posix.empty()) return absl::InvalidArgumentError("parent path: is empty");
  if (posix.find('\\') != std::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("parent path ", std::string(posix),
                     ": an image can't tell its backslash from a separator"));
  }
  std::string spelled(posix);
  std::ranges::replace(spelled, '/', '\\');
  if (spelled.starts_with("\\") || spelled.starts_with(".\\") || spelled.starts_with("..\\")) {
    return spelled;
  }
  return absl::StrCat(".\\", spelled);
}

}  // namespace bothy::disk
