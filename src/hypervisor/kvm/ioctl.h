// ioctl(2) with an absl::Status, and nothing else.
#pragma once

#include <sys/ioctl.h>

#include <cerrno>
#include <string_view>

#include "support/status.h"

namespace bothy::hypervisor::kvm {

template <typename T>
absl::Status Ioctl(int fd, unsigned long request, T argument, std::string_view what) {
  for (;;) {
    if (::ioctl(fd, request, argument) >= 0) return absl::OkStatus();
    if (errno != EINTR) return ErrnoStatus(errno, what);
  }
}

}  // namespace bothy::hypervisor::kvm
