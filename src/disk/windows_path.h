// Windows paths, as images spell where their parents are, to and from POSIX ones.
#pragma once

#include <string>
#include <string_view>

#include "support/status.h"

namespace bothy::disk {

// "..\base.vhd" is "../base.vhd"; "C:\images\base.vhd", "\\?\C:\images\base.vhd" and
// "\\?\Volume{…}\images\base.vhd" are "/images/base.vhd".
[[nodiscard]] std::string PosixPath(std::string_view spelled);

// "../base.vhd" is "..\base.vhd", "base.vhd" is ".\base.vhd", "/images/base.vhd" is
// "\images\base.vhd". InvalidArgument for an empty path and for a name with a backslash, which
// couldn't be told from a separator.
absl::StatusOr<std::string> WindowsPath(std::string_view posix);

}  // namespace bothy::disk
