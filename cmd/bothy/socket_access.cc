#include "socket_access.h"

#include <endian.h>
#include <fcntl.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "support/unique_fd.h"

namespace bothy {
namespace {

constexpr uint16_t kReadWrite = ACL_READ | ACL_WRITE;

// A list in the form of the attribute system.posix_acl_access.
class AccessList {
 public:
  AccessList() {
    const posix_acl_xattr_header header = {.a_version = htole32(POSIX_ACL_XATTR_VERSION)};
    Append(&header, sizeof header);
  }
  // In the order of the tags, users ascending.
  void Add(uint16_t tag, uint16_t permissions,
           uint32_t id = static_cast<uint32_t>(ACL_UNDEFINED_ID)) {
    const posix_acl_xattr_entry entry = {
        .e_tag = htole16(tag), .e_perm = htole16(permissions), .e_id = htole32(id)};
    Append(&entry, sizeof entry);
  }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  void Append(const void* data, size_t size) {
    bytes_.append(static_cast<const char*>(data), size);
  }

  std::string bytes_;
};

}  // namespace

absl::Status GrantAccess(const std::string& path, const std::vector<uid_t>& uids) {
  if (uids.empty()) return absl::OkStatus();
  // One file from here on, whatever others do to the path.
  const UniqueFd file(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat found;
  if (!file || ::fstat(file.get(), &found) != 0) {
    return ErrnoStatus(errno, absl::StrCat("open ", path));
  }
  if (!S_ISSOCK(found.st_mode) || found.st_uid != ::geteuid()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " isn't this server's socket any more: something else is there"));
  }

  std::vector<uid_t> users = uids;
  std::sort(users.begin(), users.end());
  users.erase(std::unique(users.begin(), users.end()), users.end());
  std::erase_if(users, [&](uid_t uid) { return uid == 0 || uid == found.st_uid; });
  if (users.empty()) return absl::OkStatus();

  AccessList list;
  list.Add(ACL_USER_OBJ, kReadWrite);
  for (const uid_t uid : users) list.Add(ACL_USER, kReadWrite, uid);
  list.Add(ACL_GROUP_OBJ, 0);
  list.Add(ACL_MASK, kReadWrite);
  list.Add(ACL_OTHER, 0);
  const std::string link = absl::StrCat("/proc/self/fd/", file.get());
  if (::setxattr(link.c_str(), "system.posix_acl_access", list.bytes().data(), list.bytes().size(),
                 0) == 0) {
    return absl::OkStatus();
  }
  if (errno == EOPNOTSUPP) {
    return absl::FailedPreconditionError(
        absl::StrCat("the file system of ", path,
                     " knows no access control lists, so that nobody else can be let in; put the "
                     "socket on another one, or pass a socket by activation (LISTEN_FDS)"));
  }
  return ErrnoStatus(errno, absl::StrCat("set the access control list of ", path));
}

}  // namespace bothy
