#include "tests/guest/disk_programs.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "tests/guest/first_process.h"
#include "tests/guest/known_writes.h"

namespace disk_programs {
namespace {

int Usage() {
  fprintf(stderr, "usage: await CONDITION | known-writes DEVICE\n");
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

}  // namespace

int Main(int argc, char** argv) {
  const char* const slash = strrchr(argv[0], '/');
  const std::string_view name = slash != nullptr ? slash + 1 : argv[0];
  if (argc != 2) return Usage();
  if (name == "await") return Await(argv[1]);
  if (name == "known-writes") return KnownWrites(argv[1]);
  return Usage();
}

}  // namespace disk_programs
