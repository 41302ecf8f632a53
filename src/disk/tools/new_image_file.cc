#include "disk/tools/new_image_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "disk/followed_link.h"
#include "disk/host_storage.h"
#include "disk/image_lock.h"
#include "disk/tools/image_format.h"

namespace bothy::disk::tools {
namespace {

constexpr int kAttempts = 100;

std::string FolderOf(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

std::string PartialPath(const std::string& path) {
  static constexpr char kLetters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
  std::random_device random;
  std::string suffix;
  for (int i = 0; i < 6; ++i) suffix.push_back(kLetters[random() % (sizeof kLetters - 1)]);
  return absl::StrCat(FolderOf(path), "/.", std::filesystem::path(path).filename().string(), ".",
                      suffix, ".partial");
}

std::string DescriptorPath(int fd) { return absl::StrCat("/proc/self/fd/", fd); }

absl::Status AlreadyThere(const std::string& path) {
  return absl::AlreadyExistsError(absl::StrCat(path, ": there is such a file already"));
}

// The file at `path`, for nobody else to use; none when there is none.
absl::StatusOr<UniqueFd> LockReplaced(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!fd && errno == ENOENT) return fd;
  if (!fd) return ErrnoStatus(errno, absl::StrCat(path, ": replace"));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return ErrnoStatus(errno, path);
  if (!S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": isn't a file that can be replaced"));
  }
  RETURN_IF_ERROR(LockImage(fd.get(), /*read_only=*/false, path));
  return fd;
}

}  // namespace

NewImageFile::NewImageFile(std::string path, Existing existing, UniqueFd replaced, UniqueFd fd,
                           std::string partial_path)
    : path_(std::move(path)),
      existing_(existing),
      replaced_(std::move(replaced)),
      fd_(std::move(fd)),
      partial_path_(std::move(partial_path)) {}

NewImageFile::~NewImageFile() {
  if (!partial_path_.empty()) ::unlink(partial_path_.c_str());
}

absl::StatusOr<std::unique_ptr<NewImageFile>> NewImageFile::Create(std::string path,
                                                                   Existing existing, mode_t mode) {
  UniqueFd replaced;
  if (existing == Existing::kRefuse) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) == 0) return AlreadyThere(path);
  } else {
    ASSIGN_OR_RETURN(path, FollowedLink(path));
    ASSIGN_OR_RETURN(replaced, LockReplaced(path));
  }
  // Nobody else's until it has the mode of what it replaces.
  mode = replaced ? S_IRUSR | S_IWUSR : mode | S_IRUSR | S_IWUSR;
  const std::string folder = FolderOf(path);
  UniqueFd fd(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, mode));
  std::string partial_path;
  // Kernels and file systems without it say so in several ways.
  const bool unsupported = errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL;
  if (!fd && !unsupported) return ErrnoStatus(errno, absl::StrCat(path, ": create"));
  for (int i = 0; !fd && i < kAttempts; ++i) {
    partial_path = PartialPath(path);
    fd.Reset(::open(partial_path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, mode));
    if (!fd && errno != EEXIST) return ErrnoStatus(errno, absl::StrCat(path, ": create"));
  }
  if (!fd) return ErrnoStatus(EEXIST, absl::StrCat(path, ": a name for a temporary file"));
  return std::unique_ptr<NewImageFile>(new NewImageFile(
      std::move(path), existing, std::move(replaced), std::move(fd), std::move(partial_path)));
}

absl::Status NewImageFile::TakeOver() {
  if (!replaced_) return absl::OkStatus();
  struct stat status {};
  if (::fstat(replaced_.get(), &status) != 0) return ErrnoStatus(errno, path_);
  mode_t mode = status.st_mode & (S_IRWXU | S_IRWXG | S_IRWXO);
  // Only root may give a file away; its members may give it to a group. Another group must not get
  // what that one had.
  if (::fchown(fd_.get(), static_cast<uid_t>(-1), status.st_gid) != 0) mode &= ~S_IRWXG;
  if (::fchown(fd_.get(), status.st_uid, static_cast<gid_t>(-1)) != 0 && errno != EPERM) {
    return ErrnoStatus(errno, absl::StrCat(path_, ": owner"));
  }
  if (::fchmod(fd_.get(), mode) != 0) return ErrnoStatus(errno, absl::StrCat(path_, ": mode"));
  return absl::OkStatus();
}

Task<absl::StatusOr<std::unique_ptr<Storage>>> NewImageFile::Open(IoLoop& loop) {
  HostStorageOptions options;
  options.path = DescriptorPath(fd_.get());
  absl::StatusOr<std::unique_ptr<Storage>> storage =
      co_await OpenHostStorage(loop, std::move(options));
  if (!storage.ok()) co_return Named(storage.status());
  co_return storage;
}

// The name must still be that of the file that nobody else may use.
absl::Status NewImageFile::CheckReplaced() const {
  struct stat mine {};
  struct stat there {};
  if (::fstat(replaced_.get(), &mine) != 0) return ErrnoStatus(errno, path_);
  if (::stat(path_.c_str(), &there) != 0) return ErrnoStatus(errno, path_);
  if (mine.st_dev == there.st_dev && mine.st_ino == there.st_ino) return absl::OkStatus();
  return absl::AbortedError(
      absl::StrCat(path_, ": became another file meanwhile, which is left as it is"));
}

absl::Status NewImageFile::Publish() {
  RETURN_IF_ERROR(TakeOver());
  if (::fsync(fd_.get()) != 0) return ErrnoStatus(errno, absl::StrCat(path_, ": fsync"));
  const std::string source = partial_path_.empty() ? DescriptorPath(fd_.get()) : partial_path_;
  if (existing_ == Existing::kReplace && partial_path_.empty()) {
    // Only a rename replaces, so it needs a name for that moment.
    partial_path_ = PartialPath(path_);
    if (::linkat(AT_FDCWD, source.c_str(), AT_FDCWD, partial_path_.c_str(), AT_SYMLINK_FOLLOW) !=
        0) {
      partial_path_.clear();
      return ErrnoStatus(errno, absl::StrCat(path_, ": link"));
    }
  }
  int result;
  bool linked = false;  // under both names
  if (replaced_) {
    RETURN_IF_ERROR(CheckReplaced());
    result = ::rename(partial_path_.c_str(), path_.c_str());
  } else if (partial_path_.empty()) {
    result = ::linkat(AT_FDCWD, source.c_str(), AT_FDCWD, path_.c_str(), AT_SYMLINK_FOLLOW);
  } else {
    result =
        ::renameat2(AT_FDCWD, partial_path_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE);
    if (result != 0 && errno == EINVAL) {
      // A file system that has no such flag, NFS for one: a second name fails just as well where
      // there is a file.
      result = ::link(partial_path_.c_str(), path_.c_str());
      linked = result == 0 && ::unlink(partial_path_.c_str()) != 0;
    }
  }
  if (result != 0) {
    if (errno == EEXIST) return AlreadyThere(path_);
    return ErrnoStatus(errno, absl::StrCat(path_, ": rename"));
  }
  if (!linked) partial_path_.clear();  // else it is tried again at the end
  const UniqueFd folder(::open(FolderOf(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder || ::fsync(folder.get()) != 0) {
    return ErrnoStatus(errno, absl::StrCat(FolderOf(path_), ": fsync"));
  }
  return absl::OkStatus();
}

absl::Status NewImageFile::Named(const absl::Status& status) const {
  if (status.ok()) return status;
  const std::string message =
      absl::StrReplaceAll(std::string(status.message()), {{DescriptorPath(fd_.get()), path_}});
  return NamedOnce(absl::Status(status.code(), message), path_);
}

}  // namespace bothy::disk::tools
