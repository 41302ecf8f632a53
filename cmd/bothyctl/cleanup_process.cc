#include "cmd/bothyctl/cleanup_process.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "cmd/bothyctl/private_folder.h"
#include "cmd/bothyctl/terminal_mode.h"

namespace bothy::bothyctl {

struct CleanupProcess::Memory {
  char folder[256];
  std::atomic<bool> raw;
  termios before;
  termios raw_mode;
};

namespace {

void CloseAllBut(int first, int second) {
  const auto low = static_cast<unsigned>(std::min(first, second));
  const auto high = static_cast<unsigned>(std::max(first, second));
  if (low > 0) ::close_range(0, low - 1, 0);
  if (high > low + 1) ::close_range(low + 1, high - 1, 0);
  ::close_range(high + 1, ~0U, 0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CleanupProcess>> CleanupProcess::Start(const std::string& folder,
                                                                      int terminal) {
  if (folder.size() >= sizeof Memory::folder) {
    return absl::InvalidArgumentError("the private folder's path is too long");
  }
  void* const shared =
      ::mmap(nullptr, sizeof(Memory), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return ErrnoStatus(errno, "mmap");
  auto* const memory = new (shared) Memory{};
  std::memcpy(memory->folder, folder.c_str(), folder.size() + 1);
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) {
    const absl::Status status = ErrnoStatus(errno, "pipe");
    ::munmap(shared, sizeof(Memory));
    return status;
  }
  UniqueFd read_end(pipe[0]);
  UniqueFd write_end(pipe[1]);

  const pid_t child = ::fork();
  if (child < 0) {
    const absl::Status status = ErrnoStatus(errno, "fork");
    ::munmap(shared, sizeof(Memory));
    return status;
  }
  if (child == 0) {
    // Only async-signal-safe calls from here on.
    ::setsid();
    sigset_t all;
    ::sigfillset(&all);
    ::sigprocmask(SIG_SETMASK, &all, nullptr);
    ::prctl(PR_SET_NAME, "bothyctl-clean");
    // Whoever waits for the end of a pipe of bothyctl's must not wait for this process.
    CloseAllBut(read_end.get(), terminal >= 0 ? terminal : read_end.get());
    char byte;
    while (::read(read_end.get(), &byte, 1) < 0 && errno == EINTR) {
    }
    if (memory->raw.load()) RestoreIfStill(terminal, memory->before, memory->raw_mode);
    RemoveFlatFolder(memory->folder);
    ::_exit(0);
  }
  return std::unique_ptr<CleanupProcess>(new CleanupProcess(child, std::move(write_end), memory));
}

CleanupProcess::CleanupProcess(pid_t child, UniqueFd alive, Memory* memory)
    : child_(child), alive_(std::move(alive)), memory_(memory) {}

CleanupProcess::~CleanupProcess() {
  alive_.Reset();
  while (::waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
  }
  ::munmap(memory_, sizeof(Memory));
}

void CleanupProcess::RememberTerminal(const termios& before, const termios& raw) {
  memory_->raw.store(false);
  memory_->before = before;
  memory_->raw_mode = raw;
  memory_->raw.store(true);
}

void CleanupProcess::ForgetTerminal() { memory_->raw.store(false); }

}  // namespace bothy::bothyctl
