// ImageLock: the lock on an image's file that keeps others from changing it under a disk, or from
// using it while a disk changes it.
#pragma once

#include <string>

#include "support/status.h"

namespace bothy::disk {

// Locks what `fd` has open, until that is closed: a writer excludes everybody else, a reader only
// writers. Heeds, and is heeded by, QEMU's tools. FailedPrecondition, naming the other process if
// that can be seen from here, when somebody is in the way. May block for two seconds: for locks
// that a killed process has left for the kernel to take back.
absl::Status LockImage(int fd, bool read_only, const std::string& path);

}  // namespace bothy::disk
