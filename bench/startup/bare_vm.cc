#include "bench/startup/bare_vm.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "bench/process.h"

namespace bothy::bench {
namespace {

// <linux/kvm.h>'s structs that end in a flexible array have another size in C++ than in C: here
// they are a header of two numbers and entries behind it, and the requests are made for that.
struct Header {
  uint32_t count = 0;
  uint32_t padding = 0;
};
constexpr unsigned long kGetSupportedCpuid = _IOWR(KVMIO, 0x05, Header);
constexpr unsigned long kSetCpuid2 = _IOW(KVMIO, 0x90, Header);
constexpr unsigned long kSetMsrs = _IOW(KVMIO, 0x89, Header);
constexpr uint32_t kMaxCpuidEntries = 256;

int Checked(int result, const char* what) {
  if (result < 0) Fail(std::string(what) + ": " + std::strerror(errno));
  return result;
}

void* Map(uint64_t size, int flags, int fd, const char* what) {
  void* const data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (data == MAP_FAILED) Fail(std::string(what) + ": " + std::strerror(errno));
  return data;
}

}  // namespace

struct BareHost::State {
  int kvm = -1;
  uint64_t run_bytes = 0;
  struct {
    Header header;
    kvm_cpuid_entry2 entries[kMaxCpuidEntries];
  } cpuid{};
};

BareHost::BareHost() : state_(std::make_unique<State>()) {
  state_->kvm = Checked(::open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
  state_->run_bytes = static_cast<uint64_t>(
      Checked(::ioctl(state_->kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE"));
  state_->cpuid.header.count = kMaxCpuidEntries;
  Checked(::ioctl(state_->kvm, kGetSupportedCpuid, &state_->cpuid), "KVM_GET_SUPPORTED_CPUID");
}

BareHost::~BareHost() { ::close(state_->kvm); }

BareVm::BareVm(const BareHost& host, uint64_t ram_bytes)
    : ram_bytes_(ram_bytes), run_bytes_(host.state_->run_bytes) {
  ram_fd_ = Checked(::memfd_create("bare-ram", MFD_CLOEXEC), "memfd_create");
  Checked(::ftruncate(ram_fd_, static_cast<off_t>(ram_bytes)), "ftruncate");
  ram_ = Map(ram_bytes, MAP_SHARED | MAP_NORESERVE, ram_fd_, "mapping RAM");

  vm_ = Checked(::ioctl(host.state_->kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
  uint64_t identity_map = 0xFFFB'C000;
  Checked(::ioctl(vm_, KVM_SET_IDENTITY_MAP_ADDR, &identity_map), "KVM_SET_IDENTITY_MAP_ADDR");
  Checked(::ioctl(vm_, KVM_SET_TSS_ADDR, 0xFFFB'D000UL), "KVM_SET_TSS_ADDR");
  Checked(::ioctl(vm_, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
  kvm_pit_config pit{};
  Checked(::ioctl(vm_, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");
  kvm_userspace_memory_region region{};
  region.memory_size = ram_bytes;
  region.userspace_addr = reinterpret_cast<uint64_t>(ram_);
  Checked(::ioctl(vm_, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");

  vcpu_ = Checked(::ioctl(vm_, KVM_CREATE_VCPU, 0UL), "KVM_CREATE_VCPU");
  run_ = Map(run_bytes_, MAP_SHARED, vcpu_, "mapping the vCPU");
  Checked(::ioctl(vcpu_, kSetCpuid2, &host.state_->cpuid), "KVM_SET_CPUID2");
  struct {
    Header header{.count = 1};
    kvm_msr_entry entry{};
  } msrs;
  msrs.entry.index = 0x2FF;  // MTRRs on, write-back
  msrs.entry.data = 1U << 11 | 6;
  Checked(::ioctl(vcpu_, kSetMsrs, &msrs), "KVM_SET_MSRS");
  kvm_sregs sregs{};
  Checked(::ioctl(vcpu_, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
  sregs.cr0 = 0x8005'0033;
  sregs.cr3 = 0x9000;
  sregs.cr4 = 0x20;
  sregs.efer = 0x500;
  sregs.cs.l = 1;
  sregs.cs.db = 0;
  Checked(::ioctl(vcpu_, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
  kvm_regs regs{};
  regs.rip = 0x100'0000;
  regs.rflags = 2;
  Checked(::ioctl(vcpu_, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

BareVm::~BareVm() {
  ::munmap(run_, run_bytes_);
  ::close(vcpu_);
  ::close(vm_);
  ::munmap(ram_, ram_bytes_);
  ::close(ram_fd_);
}

}  // namespace bothy::bench
