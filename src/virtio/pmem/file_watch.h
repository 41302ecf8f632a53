// FileWatch: hears from the host's kernel when files change, for what a mapping of them can't tell.
//
// A file that is truncated takes its mapped pages away. A thread of this process that touches one
// gets SIGBUS (SigbusGuard), a system call EFAULT; but a vCPU that does so with interrupts enabled
// gets nothing until somebody looks (Vcpu::ExposeEndlessFault), and then all files are suspects:
// this is sooner, and knows which it was. Only what another process or this one does on this host
// is heard of (inotify).
//
// On the loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "support/io_loop.h"
#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy::virtio {

class FileWatch {
 public:
  // `on_change` is called after some file was written, truncated or deleted, once for many changes.
  // ResourceExhausted when the user has too many watches (fs.inotify.max_user_instances).
  static absl::StatusOr<std::unique_ptr<FileWatch>> Create(IoLoop& loop,
                                                           std::function<void()> on_change);
  // The file that `fd` has open, which may be closed afterwards. Again: no effect.
  absl::Status Add(int fd);

 private:
  explicit FileWatch(UniqueFd inotify) : inotify_(std::move(inotify)) {}
  const UniqueFd inotify_;
  std::unique_ptr<IoLoop::Watch> watch_;
};

}  // namespace bothy::virtio
