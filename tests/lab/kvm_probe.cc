// Tells whether /dev/kvm is backed by hardware: kvm_probe [--verbose]
//
// Exit status 0: it is. 1: there is no usable /dev/kvm, or one that interprets a guest's
// kernel-mode code instruction by instruction, on which a stock kernel never gets through its
// start-up. 2: the probe itself is broken.
//
// The file's existence doesn't tell, so this runs a guest of three instructions: 64-bit kernel
// mode, a million turns of a two-instruction loop, then hlt. Hardware takes well under a
// millisecond, nested hardware not much more, an interpreter more than half a second. What counts
// is CPU time, which a busy host doesn't stretch; a timer bounds it.
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>

namespace {

constexpr int kBacked = 0;
constexpr int kNotBacked = 1;
constexpr int kBroken = 2;

constexpr uint32_t kTurns = 1'000'000;
constexpr int64_t kBoundNanoseconds = 100'000'000;  // 50 ns an instruction

constexpr size_t kMemorySize = 0x10000;
constexpr uint64_t kPml4 = 0x1000, kPdpt = 0x2000, kPd = 0x3000, kCode = 0x4000;

// 0: mov ecx, kTurns   5: dec ecx; jnz 5   9: hlt
constexpr uint8_t kProgram[] = {
    0xb9, kTurns & 0xff, kTurns >> 8 & 0xff, kTurns >> 16 & 0xff, kTurns >> 24, 0xff, 0xc9, 0x75,
    0xfc, 0xf4};

bool g_verbose = false;

int Result(int status, const char* what) {
  if (g_verbose) printf("%s\n", what);
  return status;
}

int Failure(const char* what) {
  if (g_verbose) printf("%s: %s\n", what, strerror(errno));
  return kNotBacked;
}

int64_t CpuTime() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

kvm_segment FlatSegment(uint16_t selector, bool code) {
  kvm_segment segment{};
  segment.limit = 0xffffffff;
  segment.selector = selector;
  segment.type = code ? 11 : 3;  // execute/read or read/write, accessed
  segment.present = 1;
  segment.s = 1;
  segment.l = code;
  segment.db = !code;
  segment.g = 1;
  return segment;
}

int Probe() {
  const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) return Failure("/dev/kvm");
  if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
    return Result(kNotBacked, "/dev/kvm: not KVM");
  const int vm = ioctl(kvm, KVM_CREATE_VM, 0);
  if (vm < 0) return Failure("KVM_CREATE_VM");
  void* mapping =
      mmap(nullptr, kMemorySize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return kBroken;
  auto* memory = static_cast<uint8_t*>(mapping);

  kvm_userspace_memory_region region{};
  region.memory_size = kMemorySize;
  region.userspace_addr = reinterpret_cast<uintptr_t>(memory);
  if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) != 0)
    return Failure("KVM_SET_USER_MEMORY_REGION");
  const int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
  if (vcpu < 0) return Failure("KVM_CREATE_VCPU");
  const int run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  if (run_size <= 0) return Failure("KVM_GET_VCPU_MMAP_SIZE");
  mapping =
      mmap(nullptr, static_cast<size_t>(run_size), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  if (mapping == MAP_FAILED) return Failure("mmap of the vCPU");
  auto* run = static_cast<kvm_run*>(mapping);

  // The first 2 MiB, mapped as they are.
  const uint64_t entries[][2] = {{kPml4, kPdpt | 3}, {kPdpt, kPd | 3}, {kPd, 0x83}};
  for (const auto& [address, value] : entries) memcpy(memory + address, &value, sizeof value);
  memcpy(memory + kCode, kProgram, sizeof kProgram);

  kvm_sregs special{};
  if (ioctl(vcpu, KVM_GET_SREGS, &special) != 0) return Failure("KVM_GET_SREGS");
  special.cs = FlatSegment(8, /*code=*/true);
  special.ds = special.es = special.fs = special.gs = special.ss = FlatSegment(16, /*code=*/false);
  special.cr0 = 0x80000011;  // paging, extension type, protection
  special.cr3 = kPml4;
  special.cr4 = 0x20;    // physical address extension
  special.efer = 0x500;  // long mode, enabled and active
  if (ioctl(vcpu, KVM_SET_SREGS, &special) != 0) return Failure("KVM_SET_SREGS");
  kvm_regs registers{};
  registers.rip = kCode;
  registers.rflags = 2;
  if (ioctl(vcpu, KVM_SET_REGS, &registers) != 0) return Failure("KVM_SET_REGS");

  // The signal ends KVM_RUN with EINTR.
  struct sigaction action {};
  action.sa_handler = [](int) {};
  sigaction(SIGPROF, &action, nullptr);
  itimerval timer{};
  timer.it_value.tv_usec = 2 * kBoundNanoseconds / 1000;
  setitimer(ITIMER_PROF, &timer, nullptr);

  const int64_t start = CpuTime();
  const int result = ioctl(vcpu, KVM_RUN, 0);
  const int64_t elapsed = CpuTime() - start;
  if (result != 0 && errno == EINTR)
    return Result(kNotBacked, "/dev/kvm interprets: the probe's time ran out");
  if (result != 0) return Failure("KVM_RUN");
  if (run->exit_reason != KVM_EXIT_HLT)
    return Result(kNotBacked, "/dev/kvm: the probe didn't get to its end");
  if (g_verbose)
    printf("/dev/kvm: %.2f ns an instruction\n", static_cast<double>(elapsed) / (2.0 * kTurns));
  return elapsed <= kBoundNanoseconds ? kBacked : kNotBacked;
}

}  // namespace

int main(int argc, char** argv) {
  g_verbose = argc > 1 && strcmp(argv[1], "--verbose") == 0;
  return Probe();
}
