// How a differencing image finds its parent.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "disk/disk.h"
#include "support/task.h"

namespace bothy::disk {

// What a child says of its parent. Paths are in the order in which they shall be tried, already in
// POSIX form: Windows separators turned round, a drive letter dropped; relative ones are relative
// to the child's folder.
struct ParentReference {
  std::string child_path;
  std::vector<std::string> candidate_paths;
  // For messages: the paths as the image spells them.
  std::vector<std::string> spelled_paths;
};

// Opens a parent read-only: the file at the first of the candidate paths that there is. The format
// checks the identity of what comes back, and doesn't ask for another one when that is wrong.
// NotFound lists the paths tried. Errors name the file they are about.
using ParentOpener =
    std::function<Task<absl::StatusOr<std::unique_ptr<Disk>>>(const ParentReference&)>;

// Longest chain that is opened: a bound for a chain of files that refer to each other.
inline constexpr uint32_t kMaxChainLength = 256;

}  // namespace bothy::disk
