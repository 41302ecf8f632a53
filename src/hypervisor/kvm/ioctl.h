// ioctl(2) with an absl::Status. What KVM calls invalid (EINVAL) is Internal: the client's values
// were checked before.
#pragma once

#include <sys/ioctl.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "support/status.h"

namespace bothy::hypervisor::kvm {

// What ioctl(2) returns, but never for EINTR: kernel work that waits for this thread, such as what
// is left of an io_uring that it made, interrupts calls as a signal does (KVM_CREATE_VM).
template <typename T>
int IoctlResult(int fd, unsigned long request, T argument) {
  int result = -1;
  do {
    result = ::ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  return result;
}

template <typename T>
absl::Status Ioctl(int fd, unsigned long request, T argument, std::string_view what) {
  if (IoctlResult(fd, request, argument) >= 0) return absl::OkStatus();
  const absl::Status status = ErrnoStatus(errno, what);
  return absl::IsInvalidArgument(status) ? absl::InternalError(std::string(status.message()))
                                         : status;
}

}  // namespace bothy::hypervisor::kvm
