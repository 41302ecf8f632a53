#include "parent_watch.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <utility>

#include "support/unique_fd.h"

namespace bothy {

class ParentWatch::Impl {
 public:
  Impl(EventLoop& loop, UniqueFd pidfd) : descriptor_(loop.context(), pidfd.Release()) {}
  void Wait(std::function<void()> on_death) {
    // A pidfd becomes readable when its process ends.
    descriptor_.async_wait(asio::posix::stream_descriptor::wait_read,
                           [on_death = std::move(on_death)](const asio::error_code& error) {
                             if (!error) on_death();
                           });
  }

 private:
  asio::posix::stream_descriptor descriptor_;
};

ParentWatch::ParentWatch(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ParentWatch::~ParentWatch() = default;

absl::StatusOr<std::unique_ptr<ParentWatch>> ParentWatch::Create(EventLoop& loop,
                                                                 std::function<void()> on_death) {
  const pid_t parent = ::getppid();
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, parent, 0)));
  if (!pidfd) return ErrnoStatus(errno, "--die-with-parent: watching the parent process");
  if (::getppid() != parent) {
    return absl::FailedPreconditionError("--die-with-parent: the parent has ended already");
  }
  auto impl = std::make_unique<Impl>(loop, std::move(pidfd));
  impl->Wait(std::move(on_death));
  return std::unique_ptr<ParentWatch>(new ParentWatch(std::move(impl)));
}

}  // namespace bothy
