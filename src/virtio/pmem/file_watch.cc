#include "virtio/pmem/file_watch.h"

#include <sys/inotify.h>

#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bothy::virtio {

absl::StatusOr<std::unique_ptr<FileWatch>> FileWatch::Create(IoLoop& loop,
                                                             std::function<void()> on_change) {
  UniqueFd inotify(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!inotify) return ErrnoStatus(errno, "watching files (fs.inotify.max_user_instances)");
  std::unique_ptr<FileWatch> watch(new FileWatch(std::move(inotify)));
  watch->watch_ = loop.WatchEvent(watch->inotify_.get(), std::move(on_change));
  return watch;
}

absl::Status FileWatch::Add(int fd) {
  const std::string path = absl::StrCat("/proc/self/fd/", fd);
  if (::inotify_add_watch(inotify_.get(), path.c_str(), IN_MODIFY | IN_ATTRIB) >= 0) {
    return absl::OkStatus();
  }
  return ErrnoStatus(errno, "watching a file (fs.inotify.max_user_watches)");
}

}  // namespace bothy::virtio
