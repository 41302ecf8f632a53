#include "virtio/pmem/sigbus_guard.h"

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "support/check.h"

namespace bothy::virtio {
namespace {

constexpr uintptr_t kPageBytes = 4096;

// What the handler looks at: it may interrupt any thread anywhere, so nothing here has a lock. A
// slot is taken when its end isn't 0; the beginning is set before and stays.
struct Slot {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<uint64_t> replaced{0};
};
static_assert(std::atomic<uintptr_t>::is_always_lock_free);
constinit std::array<Slot, SigbusGuard::kMaxGuards> slots;
struct sigaction previous_action;

// Async-signal-safe: mmap is a plain system call.
bool ReplacePage(uintptr_t address) {
  for (Slot& slot : slots) {
    const uintptr_t end = slot.end.load(std::memory_order_acquire);
    const uintptr_t begin = slot.begin.load(std::memory_order_relaxed);
    if (address < begin || address >= end) continue;
    // NOLINTNEXTLINE(performance-no-int-to-ptr): a fault comes with a number.
    void* const page = reinterpret_cast<void*>(address & ~(kPageBytes - 1));
    // Before the page: who sees zeroes sees this, too.
    slot.replaced.fetch_add(1, std::memory_order_seq_cst);
    return ::mmap(page, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                  -1, 0) != MAP_FAILED;
  }
  return false;
}

void OnSigbus(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const bool replaced = ReplacePage(reinterpret_cast<uintptr_t>(info->si_addr));
  errno = saved_errno;
  if (replaced) return;
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(signal, info, context);
  } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal);
  } else {
    // The access is made again, and ends the process as it would have.
    struct sigaction fatal {};
    fatal.sa_handler = SIG_DFL;
    ::sigaction(signal, &fatal, nullptr);
  }
}

void InstallHandler() {
  struct sigaction action {};
  action.sa_sigaction = OnSigbus;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ::sigemptyset(&action.sa_mask);
  CHECK(::sigaction(SIGBUS, &action, &previous_action) == 0);
}

std::mutex& SlotMutex() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SigbusGuard>> SigbusGuard::Create(std::span<uint8_t> range) {
  const std::lock_guard lock(SlotMutex());
  static const bool installed = (InstallHandler(), true);
  CHECK(installed);
  for (size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].end.load(std::memory_order_relaxed) != 0) continue;
    const auto begin = reinterpret_cast<uintptr_t>(range.data());
    slots[i].replaced.store(0, std::memory_order_relaxed);
    slots[i].begin.store(begin, std::memory_order_relaxed);
    slots[i].end.store(begin + range.size(), std::memory_order_release);
    return std::unique_ptr<SigbusGuard>(new SigbusGuard(i));
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("more than ", kMaxGuards, " ranges of mapped files at once"));
}

SigbusGuard::~SigbusGuard() {
  const std::lock_guard lock(SlotMutex());
  slots[slot_].end.store(0, std::memory_order_release);
}

uint64_t SigbusGuard::replaced_pages() const {
  return slots[slot_].replaced.load(std::memory_order_seq_cst);
}

}  // namespace bothy::virtio
