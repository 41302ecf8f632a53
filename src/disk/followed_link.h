// The file that a path's symbolic link leads to.
#pragma once

#include <string>

#include "support/status.h"

namespace bothy::disk {

// The file itself where `path` is a symbolic link, else `path`. A link that leads nowhere is
// NotFound. Blocks.
//
// An image calls its parent by a path relative to the folder that it lies in: the file's, not that
// of a link to it.
absl::StatusOr<std::string> FollowedLink(const std::string& path);

}  // namespace bothy::disk
