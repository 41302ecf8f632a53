#include "net/testing/network_namespace.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <thread>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "support/unique_fd.h"

namespace bothy::net {
namespace {

bool Write(const char* path, const std::string& text) {
  const UniqueFd fd(::open(path, O_WRONLY | O_CLOEXEC));
  return fd && ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

bool MayHaveNetworkNamespaces() {
  bool may = false;
  std::thread([&may] { may = ::unshare(CLONE_NEWNET) == 0; }).join();
  return may;
}

absl::Status Prepare() {
  if (MayHaveNetworkNamespaces()) return absl::OkStatus();
  const uid_t uid = ::getuid();
  const gid_t gid = ::getgid();
  if (::unshare(CLONE_NEWUSER) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("neither root nor user namespaces (unshare: errno ", errno, ")"));
  }
  CHECK(Write("/proc/self/setgroups", "deny"));
  CHECK(Write("/proc/self/uid_map", absl::StrCat("0 ", uid, " 1")));
  CHECK(Write("/proc/self/gid_map", absl::StrCat("0 ", gid, " 1")));
  if (!MayHaveNetworkNamespaces()) {
    return absl::FailedPreconditionError("no network namespaces on this host");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status InNetworkNamespace(const std::function<void()>& test) {
  static const absl::Status& prepared = *new absl::Status(Prepare());
  if (!prepared.ok()) return prepared;
  std::thread([&test] {
    CHECK(::unshare(CLONE_NEWNET) == 0);
    test();
  }).join();
  return absl::OkStatus();
}

void DropCapabilities() {
  __user_cap_header_struct header{};
  header.version = _LINUX_CAPABILITY_VERSION_3;
  std::array<__user_cap_data_struct, 2> none{};
  CHECK(::syscall(SYS_capset, &header, none.data()) == 0);
}

}  // namespace bothy::net
