#include "disk/image_lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include "absl/strings/str_cat.h"

namespace bothy::disk {
namespace {

// QEMU's convention (its block/file-posix.c): open file description locks on single bytes, all of
// them shared ones. Byte 100 + N says "I use permission N", byte 200 + N "nobody else may use it".
// One who has taken his looks whether there are some that contradict them; who comes second, sees
// those of the first.
constexpr off_t kUses = 100;
constexpr off_t kDenies = 200;
enum Permission : off_t { kConsistentRead = 0, kWrite = 1, kResize = 3 };

struct flock LockOf(short type, off_t start, off_t length) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = length;
  return lock;
}

enum class Outcome { kDone, kInUse, kError };

Outcome Take(int fd, short type, off_t start, off_t length) {
  struct flock lock = LockOf(type, start, length);
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) return Outcome::kDone;
  return errno == EAGAIN || errno == EACCES ? Outcome::kInUse : Outcome::kError;
}

// Whether another one has a lock on that byte.
Outcome See(int fd, off_t byte) {
  struct flock lock = LockOf(F_WRLCK, byte, 1);
  if (::fcntl(fd, F_OFD_GETLK, &lock) != 0) return Outcome::kError;
  return lock.l_type == F_UNLCK ? Outcome::kDone : Outcome::kInUse;
}

Outcome TakeAsReader(int fd) {
  for (const off_t byte : {kUses + kConsistentRead, kDenies + kWrite, kDenies + kResize}) {
    if (const Outcome taken = Take(fd, F_RDLCK, byte, 1); taken != Outcome::kDone) return taken;
  }
  for (const off_t byte : {kUses + kWrite, kUses + kResize, kDenies + kConsistentRead}) {
    if (const Outcome seen = See(fd, byte); seen != Outcome::kDone) return seen;
  }
  return Outcome::kDone;
}

// The process that holds a lock on the file, if procfs shows it: others' locks are visible to them
// and to root. The kernel names no owner of such locks, but says which descriptors hold some.
std::optional<int> FindHolder(int fd) {
  struct stat mine {};
  if (::fstat(fd, &mine) != 0) return std::nullopt;
  std::error_code error;
  for (auto process = std::filesystem::directory_iterator("/proc", error);
       !error && process != std::filesystem::directory_iterator(); process.increment(error)) {
    const int pid = std::atoi(process->path().filename().c_str());
    if (pid == 0) continue;
    std::error_code hidden;
    for (auto entry = std::filesystem::directory_iterator(process->path() / "fd", hidden);
         !hidden && entry != std::filesystem::directory_iterator(); entry.increment(hidden)) {
      struct stat theirs {};
      if (::stat(entry->path().c_str(), &theirs) != 0) continue;
      if (theirs.st_dev != mine.st_dev || theirs.st_ino != mine.st_ino) continue;
      const int number = std::atoi(entry->path().filename().c_str());
      if (pid == ::getpid() && number == fd) continue;
      std::ifstream info(process->path() / "fdinfo" / entry->path().filename());
      for (std::string line; std::getline(info, line);) {
        if (line.starts_with("lock:")) return pid;
      }
    }
  }
  return std::nullopt;
}

// The files of a killed process that used io_uring are closed by a worker of the kernel's, some
// time after the process is gone: a lock of nobody goes soon. There is no way to wait for that with
// an end to it, so it is looked for.
constexpr timespec kBetweenLooks{.tv_sec = 0, .tv_nsec = 20'000'000};
constexpr int kLooks = 100;

}  // namespace

absl::Status LockImage(int fd, bool read_only, const std::string& path) {
  std::optional<int> holder;
  for (int look = 0; look < kLooks && !holder.has_value(); ++look) {
    if (look != 0) ::nanosleep(&kBetweenLooks, nullptr);
    switch (read_only ? TakeAsReader(fd) : Take(fd, F_WRLCK, 0, 0)) {
      case Outcome::kDone:
        return absl::OkStatus();
      case Outcome::kError:
        return ErrnoStatus(errno, absl::StrCat(path, ": locking"));
      case Outcome::kInUse:
        break;
    }
    // Reads all of procfs: once before waiting, and once to name who came meanwhile.
    if (look == 0 || look == kLooks - 1) holder = FindHolder(fd);
  }
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": in use by ",
                   !holder               ? "another process"
                   : *holder == getpid() ? "this process already"
                                         : absl::StrCat("another process (pid ", *holder, ")"),
                   read_only ? ", which may write to it" : ""));
}

}  // namespace bothy::disk
