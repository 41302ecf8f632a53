#include "cmd/bothyctl/private_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/unix_socket.h"

namespace bothy::bothyctl {
namespace {

bool IsFolder(const char* path) {
  struct stat status;
  return ::stat(path, &status) == 0 && S_ISDIR(status.st_mode) && ::access(path, W_OK | X_OK) == 0;
}

}  // namespace

absl::StatusOr<PrivateFolder> PrivateFolder::Create() {
  constexpr char kTemplate[] = "/bothyctl-XXXXXX";
  constexpr size_t kMaxParent = kMaxSocketPath - (sizeof kTemplate - 1) - 1 - kMaxPrivateFileName;
  const char* const runtime = std::getenv("XDG_RUNTIME_DIR");
  const bool usable = runtime != nullptr && *runtime == '/' && IsFolder(runtime) &&
                      std::strlen(runtime) <= kMaxParent;
  std::string path = absl::StrCat(usable ? runtime : "/tmp", kTemplate);
  if (::mkdtemp(path.data()) == nullptr) {
    return ErrnoStatus(errno, absl::StrCat("make a folder ", path));
  }
  return PrivateFolder(std::move(path));
}

PrivateFolder::PrivateFolder(PrivateFolder&& other) noexcept
    : path_(std::exchange(other.path_, {})) {}

PrivateFolder& PrivateFolder::operator=(PrivateFolder&& other) noexcept {
  if (this != &other) {
    if (!path_.empty()) RemoveFlatFolder(path_.c_str());
    path_ = std::exchange(other.path_, {});
  }
  return *this;
}

PrivateFolder::~PrivateFolder() {
  if (!path_.empty()) RemoveFlatFolder(path_.c_str());
}

void RemoveFlatFolder(const char* path) {
  // opendir(3) allocates; the system call doesn't.
  struct Entry {
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[1];
  };
  const int folder = ::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (folder >= 0) {
    alignas(Entry) char buffer[4096];
    long size = 0;
    while ((size = ::syscall(SYS_getdents64, folder, buffer, sizeof buffer)) > 0) {
      for (long at = 0; at < size;) {
        const char* const entry = buffer + at;
        ::unlinkat(folder, entry + offsetof(Entry, name), 0);
        uint16_t length = 0;
        std::memcpy(&length, entry + offsetof(Entry, length), sizeof length);
        at += length;
      }
    }
    ::close(folder);
  }
  ::rmdir(path);
}

}  // namespace bothy::bothyctl
