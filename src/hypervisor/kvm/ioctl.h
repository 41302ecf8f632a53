// ioctl(2) with an absl::Status. What KVM calls invalid (EINVAL) is Internal: the client's values
// were checked before.
#pragma once

#include <sys/ioctl.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "support/status.h"

namespace bothy::hypervisor::kvm {

template <typename T>
absl::Status Ioctl(int fd, unsigned long request, T argument, std::string_view what) {
  for (;;) {
    if (::ioctl(fd, request, argument) >= 0) return absl::OkStatus();
    if (errno == EINTR) continue;
    const absl::Status status = ErrnoStatus(errno, what);
    return absl::IsInvalidArgument(status) ? absl::InternalError(std::string(status.message()))
                                           : status;
  }
}

}  // namespace bothy::hypervisor::kvm
