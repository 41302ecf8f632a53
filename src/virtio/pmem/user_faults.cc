#include "virtio/pmem/user_faults.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/check.h"

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)  // Linux 6.1
#endif

namespace bothy::virtio {
namespace {

constexpr const char* kDevice = "/dev/userfaultfd";
constexpr uint64_t kPageBytes = 4096;
constexpr size_t kMaxThreadName = 15;  // pthread_setname_np(3)

// The system call needs CAP_SYS_PTRACE or vm.unprivileged_userfaultfd to see the kernel's own
// faults; the device needs only access to it.
absl::StatusOr<UniqueFd> OpenUserFaultFd() {
  constexpr int kFlags = O_CLOEXEC | O_NONBLOCK;
  UniqueFd direct(static_cast<int>(::syscall(SYS_userfaultfd, kFlags)));
  if (direct) return direct;
  const int error = errno;
  if (error != EPERM && error != ENOSYS) return ErrnoStatus(error, "userfaultfd");
  const UniqueFd device(::open(kDevice, O_RDWR | O_CLOEXEC));
  if (device) {
    UniqueFd made(::ioctl(device.get(), USERFAULTFD_IOC_NEW, kFlags));
    if (made) return made;
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "the host doesn't allow userfaultfd, which fills pages on demand: give the server access to ",
      kDevice, " or CAP_SYS_PTRACE, or set the sysctl vm.unprivileged_userfaultfd to 1"));
}

// How far a call came that ended early: it was interrupted, or met a page that is there, of an
// earlier attempt for which there wasn't enough memory.
uint64_t Done(int error, int64_t reported) {
  if (error == EEXIST) return kPageBytes;
  return reported > 0 ? static_cast<uint64_t>(reported) : 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<UserFaults>> UserFaults::Create(std::span<uint8_t> range,
                                                               bool track_stores,
                                                               const std::string& thread_name,
                                                               Handler& handler) {
  ASSIGN_OR_RETURN(UniqueFd faults, OpenUserFaultFd());
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = track_stores ? UFFD_FEATURE_PAGEFAULT_FLAG_WP : 0;
  if (::ioctl(faults.get(), UFFDIO_API, &api) != 0) {
    return absl::FailedPreconditionError(
        "the host's userfaultfd can't write-protect pages; Linux 5.7 or newer is needed");
  }
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
  if (!stop) return ErrnoStatus(errno, "eventfd for the fault thread");
  std::unique_ptr<UserFaults> made(
      new UserFaults(range, track_stores, handler, std::move(faults), std::move(stop)));
  try {
    made->thread_ = std::thread([raw = made.get(), name = thread_name.substr(0, kMaxThreadName)] {
      ::pthread_setname_np(::pthread_self(), name.c_str());
      raw->Run();
    });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(absl::StrCat("a thread for page faults: ", error.what()));
  }
  return made;
}

UserFaults::~UserFaults() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  CHECK(::write(stop_.get(), &one, sizeof one) == sizeof one);
  thread_.join();
}

void UserFaults::Run() {
  std::array<pollfd, 2> polled = {pollfd{.fd = faults_.get(), .events = POLLIN, .revents = 0},
                                  pollfd{.fd = stop_.get(), .events = POLLIN, .revents = 0}};
  while (true) {
    if (::poll(polled.data(), polled.size(), -1) < 0) {
      CHECK(errno == EINTR);
      continue;
    }
    if (polled[1].revents != 0) return;
    ReadFaults();
  }
}

void UserFaults::ReadFaults() {
  std::array<uffd_msg, 16> messages;
  const ssize_t bytes = ::read(faults_.get(), messages.data(), sizeof messages);
  // Somebody else may have woken who was to be told of.
  if (bytes < 0) return;
  for (size_t i = 0; i < static_cast<size_t>(bytes) / sizeof(uffd_msg); ++i) {
    const uffd_msg& message = messages[i];
    if (message.event != UFFD_EVENT_PAGEFAULT) continue;
    const uint64_t offset =
        (message.arg.pagefault.address - reinterpret_cast<uint64_t>(range_.data())) &
        ~(kPageBytes - 1);
    CHECK(offset < range_.size());
    const uint64_t flags = message.arg.pagefault.flags;
    if ((flags & UFFD_PAGEFAULT_FLAG_WP) != 0) {
      handler_.OnProtected(offset);
    } else {
      handler_.OnMissing(offset, (flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0);
    }
  }
}

absl::Status UserFaults::Register(uint64_t offset, uint64_t length) {
  uffdio_register registration{};
  registration.range = {.start = reinterpret_cast<uint64_t>(range_.data() + offset), .len = length};
  registration.mode =
      UFFDIO_REGISTER_MODE_MISSING | (track_stores_ ? UFFDIO_REGISTER_MODE_WP : uint64_t{0});
  if (::ioctl(faults_.get(), UFFDIO_REGISTER, &registration) == 0) return absl::OkStatus();
  return ErrnoStatus(
      errno, absl::StrCat("registering ", length, " bytes at ", offset, " for userfaultfd"));
}

absl::Status UserFaults::Fill(uint64_t offset, std::span<const uint8_t> contents, bool protect) {
  while (!contents.empty()) {
    uffdio_copy copy{};
    copy.dst = reinterpret_cast<uint64_t>(range_.data() + offset);
    copy.src = reinterpret_cast<uint64_t>(contents.data());
    copy.len = contents.size();
    copy.mode = UFFDIO_COPY_MODE_DONTWAKE | (protect ? UFFDIO_COPY_MODE_WP : uint64_t{0});
    if (::ioctl(faults_.get(), UFFDIO_COPY, &copy) == 0) return absl::OkStatus();
    const int error = errno;
    if (error != EAGAIN && error != EEXIST) {
      return ErrnoStatus(error, absl::StrCat("UFFDIO_COPY at ", offset));
    }
    const uint64_t done = Done(error, copy.copy);
    contents = contents.subspan(done);
    offset += done;
  }
  return absl::OkStatus();
}

absl::Status UserFaults::FillZero(uint64_t offset, uint64_t length) {
  while (length > 0) {
    uffdio_zeropage zero{};
    zero.range = {.start = reinterpret_cast<uint64_t>(range_.data() + offset), .len = length};
    zero.mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE;
    if (::ioctl(faults_.get(), UFFDIO_ZEROPAGE, &zero) == 0) return absl::OkStatus();
    const int error = errno;
    if (error != EAGAIN && error != EEXIST) {
      return ErrnoStatus(error, absl::StrCat("UFFDIO_ZEROPAGE at ", offset));
    }
    const uint64_t done = Done(error, zero.zeropage);
    length -= done;
    offset += done;
  }
  return absl::OkStatus();
}

absl::Status UserFaults::Protect(uint64_t offset, uint64_t length) {
  return ChangeProtection(offset, length, UFFDIO_WRITEPROTECT_MODE_WP);
}

absl::Status UserFaults::Unprotect(uint64_t offset, uint64_t length) {
  return ChangeProtection(offset, length, 0);
}

absl::Status UserFaults::ChangeProtection(uint64_t offset, uint64_t length, uint64_t mode) {
  uffdio_writeprotect change{};
  change.range = {.start = reinterpret_cast<uint64_t>(range_.data() + offset), .len = length};
  change.mode = mode;
  while (::ioctl(faults_.get(), UFFDIO_WRITEPROTECT, &change) != 0) {
    if (errno != EAGAIN && errno != EINTR) {
      return ErrnoStatus(errno, absl::StrCat("UFFDIO_WRITEPROTECT at ", offset));
    }
  }
  return absl::OkStatus();
}

void UserFaults::Wake(uint64_t offset, uint64_t length) {
  uffdio_range range = {.start = reinterpret_cast<uint64_t>(range_.data() + offset), .len = length};
  CHECK(::ioctl(faults_.get(), UFFDIO_WAKE, &range) == 0);
}

}  // namespace bothy::virtio
