// FileCall: a file operation as data, so that an engine can keep it until its turn comes.
#pragma once

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <span>

#include "support/io_loop.h"

namespace bothy {

struct FileCall {
  enum class Kind : uint8_t { kRead, kWrite, kSync, kDataSync, kAllocate };
  Kind kind = Kind::kRead;
  int fd = -1;
  int mode = 0;                         // kAllocate
  std::span<const iovec> buffers = {};  // kRead, kWrite
  uint64_t offset = 0;
  uint64_t length = 0;     // kAllocate
  bool elsewhere = false;  // on another CPU, even if it needn't wait
  IoLoop::Operation* op = nullptr;

  // Makes it here and now, RWF_* `flags` for a transfer: what the system call returned, or -errno.
  [[nodiscard]] int64_t Make(int flags = 0) const {
    const int64_t result = Call(flags);
    return result >= 0 ? result : -int64_t{errno};
  }

 private:
  [[nodiscard]] int64_t Call(int flags) const {
    const int count = static_cast<int>(buffers.size());
    const auto at = static_cast<off_t>(offset);
    switch (kind) {
      case Kind::kRead:
        return ::preadv2(fd, buffers.data(), count, at, flags);
      case Kind::kWrite:
        // Saves the kernel copying a list of one.
        if (count == 1 && flags == 0) {
          return ::pwrite(fd, buffers[0].iov_base, buffers[0].iov_len, at);
        }
        return ::pwritev2(fd, buffers.data(), count, at, flags);
      case Kind::kSync:
        return ::fsync(fd);
      case Kind::kDataSync:
        return ::fdatasync(fd);
      case Kind::kAllocate:
        return ::fallocate(fd, mode, at, static_cast<off_t>(length));
    }
    errno = EINVAL;
    return -1;
  }
};

}  // namespace bothy
