// PrivateFolder: a new folder that only this user can enter, for the sockets of one `run`; it and
// the files in it go with the object.
#pragma once

#include <string>

#include "support/status.h"

namespace bothy::bothyctl {

// The longest name of a file in one.
inline constexpr size_t kMaxPrivateFileName = 16;

class PrivateFolder {
 public:
  // Under $XDG_RUNTIME_DIR, or /tmp where that isn't a folder, or is so long a path that those of
  // sockets in it don't fit an address.
  static absl::StatusOr<PrivateFolder> Create();
  PrivateFolder(PrivateFolder&& other) noexcept;
  PrivateFolder& operator=(PrivateFolder&& other) noexcept;
  ~PrivateFolder();

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  explicit PrivateFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;  // empty: moved from
};

// Removes a folder that holds no folders. Async-signal-safe, so that it can be done after fork(2)
// and before exec(2).
void RemoveFlatFolder(const char* path);

}  // namespace bothy::bothyctl
