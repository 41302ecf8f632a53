// BootFile: a kernel or initrd on the host, opened for reading.
//
// Contents are hostile and may change or shrink while we read; every read is a pread(2) into memory
// of ours (or of the guest) that is validated afterwards, never a mapping, because a file that
// shrinks under a mapping kills the process.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy::boot {

class BootFile {
 public:
  // Opens `path`. NotFound, PermissionDenied by what open(2) says; InvalidArgument unless it is a
  // regular file. Messages begin with the path.
  static absl::StatusOr<BootFile> Open(const std::string& path);

  [[nodiscard]] const std::string& path() const { return path_; }
  // Bytes when it was opened.
  [[nodiscard]] uint64_t size() const { return size_; }
  // Fills `out` from `offset`. InvalidArgument when the file ends before that.
  absl::Status ReadAt(uint64_t offset, std::span<uint8_t> out) const;

 private:
  BootFile(std::string path, UniqueFd fd, uint64_t size)
      : path_(std::move(path)), fd_(std::move(fd)), size_(size) {}

  std::string path_;
  UniqueFd fd_;
  uint64_t size_ = 0;
};

}  // namespace bothy::boot
