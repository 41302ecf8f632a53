#include "boot/boot_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"

namespace bothy::boot {

absl::StatusOr<BootFile> BootFile::Open(const std::string& path) {
  if (path.empty()) return absl::InvalidArgumentError("must not be empty");
  if (path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("must not contain a NUL character");
  }
  // O_NONBLOCK: opening a FIFO must not wait for its writer.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) return ErrnoStatus(errno, path);
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": isn't a regular file"));
  }
  return BootFile(path, std::move(fd), static_cast<uint64_t>(info.st_size));
}

absl::Status BootFile::ReadAt(uint64_t offset, std::span<uint8_t> out) const {
  // One call reads less than 2 GiB; in pieces of that, huge initrds work as well.
  constexpr size_t kMaxRead = size_t{1} << 30;
  while (!out.empty()) {
    const ssize_t n =
        ::pread(fd_.get(), out.data(), std::min(out.size(), kMaxRead), static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, absl::StrCat("read at ", offset));
    }
    if (n == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the file ends at byte ", offset, ", ", out.size(), " bytes early"));
    }
    out = out.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return absl::OkStatus();
}

}  // namespace bothy::boot
