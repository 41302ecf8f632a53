#include "tests/guest/disk_programs.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "tests/guest/first_process.h"
#include "tests/guest/known_tree.h"
#include "tests/guest/known_writes.h"

namespace disk_programs {
namespace {

int Usage() {
  fprintf(stderr,
          "usage: await CONDITION | known-writes DEVICE | make-tree FOLDER FILES | "
          "check-tree FOLDER FILES\n");
  return 2;
}

int Failure(const char* what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  return 1;
}

// Ends when the shell command `condition` succeeds, which is tried again after each event of the
// kernel's devices.
int Await(const char* condition) {
  const int events = first_process::OpenDeviceEvents();
  if (events < 0) return Failure("uevents");
  while (first_process::RunProgram({"/bin/sh", "-c", condition}) != 0) {
    char event[8192];
    if (recv(events, event, sizeof event, 0) < 0 && errno != ENOBUFS && errno != EINTR) {
      return Failure("uevents");
    }
    // One more look is enough for all that have come by now.
    while (recv(events, event, sizeof event, MSG_DONTWAIT) > 0) continue;
  }
  return 0;
}

// Prints a record's number once it is durable, for ever.
int KnownWrites(const char* device) {
  const int fd = open(device, O_RDWR | O_DIRECT | O_CLOEXEC);
  uint64_t bytes = 0;
  if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) != 0) return Failure(device);
  const uint64_t slots = bytes / known_writes::kRecordBytes;
  alignas(known_writes::kRecordBytes) static uint64_t record[known_writes::kRecordBytes / 8];
  for (uint64_t number = 1;; ++number) {
    known_writes::Fill(number, record);
    const auto offset = static_cast<off_t>(known_writes::SlotOf(number, slots) * sizeof record);
    if (pwrite(fd, record, sizeof record, offset) != sizeof record) return Failure("write");
    if (fdatasync(fd) != 0) return Failure("fdatasync");
    if (!first_process::WriteAll(STDOUT_FILENO, std::to_string(number) + "\n")) return 1;
  }
}

int MakeTree(const std::string& root, uint64_t files) {
  for (uint64_t file = 0; file < files; ++file) {
    const std::string folder = root + "/" + known_tree::FolderOf(file);
    if (file % known_tree::kFilesPerFolder == 0) {
      (void)mkdir(folder.substr(0, folder.rfind('/')).c_str(), 0755);
      if (mkdir(folder.c_str(), 0755) != 0) return Failure(folder.c_str());
    }
    const std::string path = root + "/" + known_tree::PathOf(file);
    const std::vector<char> contents = known_tree::ContentsOf(file);
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 || !first_process::WriteAll(fd, {contents.data(), contents.size()})) {
      return Failure(path.c_str());
    }
    close(fd);
  }
  return 0;
}

int CheckTree(const std::string& root, uint64_t files) {
  std::vector<char> found;
  for (uint64_t file = 0; file < files; ++file) {
    const std::string path = root + "/" + known_tree::PathOf(file);
    const std::vector<char> contents = known_tree::ContentsOf(file);
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return Failure(path.c_str());
    found.resize(contents.size() + 1);
    size_t bytes = 0;
    for (ssize_t got = 1; got > 0; bytes += static_cast<size_t>(got)) {
      got = read(fd, found.data() + bytes, found.size() - bytes);
      if (got < 0) return Failure(path.c_str());
    }
    close(fd);
    found.resize(bytes);
    if (found != contents) {
      fprintf(stderr, "%s: has other contents\n", path.c_str());
      return 1;
    }
  }
  printf("%llu files\n", static_cast<unsigned long long>(files));
  return 0;
}

}  // namespace

int Main(int argc, char** argv) {
  const char* const slash = strrchr(argv[0], '/');
  const std::string_view name = slash != nullptr ? slash + 1 : argv[0];
  if (name == "await" && argc == 2) return Await(argv[1]);
  if (name == "known-writes" && argc == 2) return KnownWrites(argv[1]);
  if (name == "make-tree" && argc == 3) return MakeTree(argv[1], strtoull(argv[2], nullptr, 10));
  if (name == "check-tree" && argc == 3) return CheckTree(argv[1], strtoull(argv[2], nullptr, 10));
  return Usage();
}

}  // namespace disk_programs
