#include "hypervisor/kvm/kvm.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <x86intrin.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "hypervisor/kvm/cpuid.h"
#include "hypervisor/kvm/flexible_arrays.h"
#include "hypervisor/kvm/interrupt_routes.h"
#include "hypervisor/kvm/ioctl.h"
#include "hypervisor/kvm/kvm_doorbell.h"
#include "hypervisor/kvm/kvm_vcpu.h"
#include "hypervisor/kvm/memory_slots.h"
#include "memory/layout.h"
#include "support/check.h"
#include "support/unique_fd.h"

namespace bothy::hypervisor::kvm {
namespace {

// The in-kernel I/O APIC addresses destinations with 8 bits, of which 255 is broadcast.
constexpr uint32_t kMaxXapicVcpus = 255;

class KvmIrqLine final : public IrqLine {
 public:
  KvmIrqLine(int vm_fd, uint32_t gsi) : vm_fd_(vm_fd), gsi_(gsi) {}
  void Set(bool asserted) override {
    // Two threads that set different levels are ordered by the device that owns the line; here only
    // repeats of the same level are saved.
    if (level_.exchange(asserted, std::memory_order_acq_rel) == asserted) return;
    kvm_irq_level level{};
    level.irq = gsi_;
    level.level = asserted ? 1 : 0;
    CHECK(::ioctl(vm_fd_, KVM_IRQ_LINE, &level) == 0);
  }

 private:
  const int vm_fd_;
  const uint32_t gsi_;
  std::atomic<bool> level_{false};
};

struct HostFacts {
  std::vector<kvm_cpuid_entry2> cpuid;
  size_t run_size_bytes = 0;
  bool tsc_deadline_timer = false;
  uint32_t max_memory_slots = 0;
  uint32_t max_interrupt_routes = 0;
};

class KvmVm final : public Vm {
 public:
  KvmVm(UniqueFd fd, const HostFacts& host)
      : fd_(std::move(fd)),
        host_(host),
        slots_(fd_.get(), host.max_memory_slots),
        routes_(fd_.get(), host.max_interrupt_routes) {}

  absl::Status Initialize() {
    const int fd = fd_.get();
    uint64_t identity = memory::kKvmIdentityMapBase;
    RETURN_IF_ERROR(Ioctl(fd, KVM_SET_IDENTITY_MAP_ADDR, &identity, "placing the identity map"));
    RETURN_IF_ERROR(Ioctl(fd, KVM_SET_TSS_ADDR, static_cast<unsigned long>(memory::kKvmTssBase),
                          "placing the TSS"));
    RETURN_IF_ERROR(Ioctl(fd, KVM_CREATE_IRQCHIP, 0, "creating the interrupt controllers"));
    kvm_pit_config pit{};
    pit.flags = KVM_PIT_SPEAKER_DUMMY;
    return Ioctl(fd, KVM_CREATE_PIT2, &pit, "creating the PIT");
  }

  absl::Status MapRam(uint64_t guest_physical, std::span<uint8_t> host) override {
    return slots_.MapForGood(guest_physical, host);
  }

  absl::StatusOr<std::unique_ptr<MemorySlot>> MapMemory(const MemorySlotOptions& options) override {
    return slots_.Map(options);
  }

  absl::StatusOr<std::unique_ptr<Doorbell>> AttachDoorbell(
      const DoorbellOptions& options) override {
    return AttachKvmDoorbell(fd_.get(), options);
  }

  absl::StatusOr<std::unique_ptr<Vcpu>> CreateVcpu(uint32_t index, uint32_t count) override {
    const std::vector<kvm_cpuid_entry2> cpuid = BuildCpuid(
        host_.cpuid,
        {.apic_id = index, .cpu_count = count, .tsc_deadline_timer = host_.tsc_deadline_timer});
    ASSIGN_OR_RETURN(
        std::unique_ptr<KvmVcpu> vcpu,
        KvmVcpu::Create(fd_.get(),
                        {.index = index, .cpuid = &cpuid, .run_size_bytes = host_.run_size_bytes}));
    vcpus_.push_back(vcpu.get());
    return vcpu;
  }

  std::unique_ptr<IrqLine> CreateIrqLine(uint32_t gsi) override {
    return std::make_unique<KvmIrqLine>(fd_.get(), gsi);
  }

  std::unique_ptr<MsiRoute> CreateMsiRoute() override {
    return CreateKvmMsiRoute(fd_.get(), routes_);
  }

  absl::Status StopClocks() override {
    CHECK(!stopped_);
    RETURN_IF_ERROR(Ioctl(fd_.get(), KVM_GET_PIT2, &pit_, "reading the PIT"));
    RETURN_IF_ERROR(Ioctl(fd_.get(), KVM_GET_CLOCK, &clock_, "reading the KVM clock"));
    stopped_at_tsc_ = __rdtsc();
    stopped_ = true;
    return absl::OkStatus();
  }

  absl::Status StartClocks() override {
    if (!stopped_) return absl::OkStatus();
    // One difference for all vCPUs: their TSCs stay in step, and the KVM clock keeps its master
    // clock.
    const uint64_t paused_ticks = __rdtsc() - stopped_at_tsc_;
    for (KvmVcpu* vcpu : vcpus_) {
      const absl::StatusOr<uint64_t> offset = vcpu->GetTscOffset();
      if (absl::IsUnimplemented(offset.status())) break;
      RETURN_IF_ERROR(offset.status());
      RETURN_IF_ERROR(vcpu->SetTscOffset(*offset - paused_ticks));
    }
    kvm_clock_data clock{};
    clock.clock = clock_.clock;
    RETURN_IF_ERROR(Ioctl(fd_.get(), KVM_SET_CLOCK, &clock, "setting the KVM clock"));
    RETURN_IF_ERROR(Ioctl(fd_.get(), KVM_SET_PIT2, &pit_, "setting the PIT"));
    for (KvmVcpu* vcpu : vcpus_) vcpu->NotifyClockStopped();
    stopped_ = false;
    return absl::OkStatus();
  }

  absl::Status CapturePowerOnState() override {
    for (uint32_t chip = 0; chip < power_on_chips_.size(); ++chip) {
      power_on_chips_[chip].chip_id = chip;
      RETURN_IF_ERROR(Ioctl(fd_.get(), KVM_GET_IRQCHIP, &power_on_chips_[chip],
                            "reading an interrupt controller"));
    }
    return Ioctl(fd_.get(), KVM_GET_PIT2, &power_on_pit_, "reading the PIT");
  }

  absl::Status RestorePowerOnState() override {
    for (kvm_irqchip& chip : power_on_chips_) {
      RETURN_IF_ERROR(Ioctl(fd_.get(), KVM_SET_IRQCHIP, &chip, "setting an interrupt controller"));
    }
    stopped_ = false;  // clocks begin anew with the machine
    return Ioctl(fd_.get(), KVM_SET_PIT2, &power_on_pit_, "setting the PIT");
  }

 private:
  UniqueFd fd_;
  const HostFacts& host_;
  MemorySlots slots_;
  InterruptRoutes routes_;
  std::vector<KvmVcpu*> vcpus_;
  bool stopped_ = false;
  uint64_t stopped_at_tsc_ = 0;
  kvm_clock_data clock_{};
  kvm_pit_state2 pit_{};
  std::array<kvm_irqchip, 3> power_on_chips_{};  // PIC master, PIC slave, I/O APIC
  kvm_pit_state2 power_on_pit_{};
};

class Kvm final : public Hypervisor {
 public:
  explicit Kvm(UniqueFd fd) : fd_(std::move(fd)) {}

  absl::Status Initialize() {
    if (const int version = ::ioctl(fd_.get(), KVM_GET_API_VERSION, 0); version != 12) {
      return absl::FailedPreconditionError(
          absl::StrCat("/dev/kvm speaks API version ", version, ", not 12"));
    }
    struct Requirement {
      int capability;
      const char* name;
    };
    constexpr Requirement kRequired[] = {
        {KVM_CAP_IRQCHIP, "an in-kernel interrupt controller"},
        {KVM_CAP_USER_MEMORY, "user memory regions"},
        {KVM_CAP_SET_TSS_ADDR, "KVM_SET_TSS_ADDR"},
        {KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_SET_IDENTITY_MAP_ADDR"},
        {KVM_CAP_EXT_CPUID, "KVM_GET_SUPPORTED_CPUID"},
        {KVM_CAP_PIT2, "an in-kernel PIT"},
        {KVM_CAP_ADJUST_CLOCK, "KVM_SET_CLOCK"},
        {KVM_CAP_IMMEDIATE_EXIT, "immediate_exit"},
        {KVM_CAP_IRQFD, "irqfd"},
        {KVM_CAP_IOEVENTFD, "ioeventfd"},
        {KVM_CAP_IOEVENTFD_ANY_LENGTH, "ioeventfd for writes of any size"},
        {KVM_CAP_SIGNAL_MSI, "KVM_SIGNAL_MSI"},
        {KVM_CAP_IRQ_ROUTING, "interrupt routing"},
        {KVM_CAP_NR_MEMSLOTS, "a count of memory slots"},
        {KVM_CAP_READONLY_MEM, "read-only memory slots"},
    };
    for (const Requirement& required : kRequired) {
      if (Extension(required.capability) <= 0) {
        return absl::FailedPreconditionError(absl::StrCat("this host's KVM lacks ", required.name));
      }
    }
    const int run_size = ::ioctl(fd_.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_size <= 0) return ErrnoStatus(errno, "KVM_GET_VCPU_MMAP_SIZE");
    host_.run_size_bytes = static_cast<size_t>(run_size);
    host_.max_memory_slots = static_cast<uint32_t>(Extension(KVM_CAP_NR_MEMSLOTS));
    host_.max_interrupt_routes = static_cast<uint32_t>(Extension(KVM_CAP_IRQ_ROUTING));
    host_.tsc_deadline_timer = Extension(KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    RETURN_IF_ERROR(ReadCpuid());
    limits_.physical_address_bits = PhysicalAddressBits(host_.cpuid);
    const auto max_vcpus = static_cast<uint32_t>(std::max(1, Extension(KVM_CAP_MAX_VCPUS)));
    limits_.max_vcpus = std::min(max_vcpus, kMaxXapicVcpus);
    return absl::OkStatus();
  }

  [[nodiscard]] const HostLimits& limits() const override { return limits_; }

  absl::StatusOr<std::unique_ptr<Vm>> CreateVm() override {
    UniqueFd fd(IoctlResult(fd_.get(), KVM_CREATE_VM, 0));
    if (!fd) return ErrnoStatus(errno, "creating a KVM virtual machine");
    auto vm = std::make_unique<KvmVm>(std::move(fd), host_);
    RETURN_IF_ERROR(vm->Initialize());
    return vm;
  }

 private:
  int Extension(int capability) const {
    return ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, static_cast<unsigned long>(capability));
  }

  absl::Status ReadCpuid() {
    for (size_t capacity = 128; capacity <= 1024; capacity *= 2) {
      CountedArray<kvm_cpuid_entry2> cpuid(capacity);
      if (::ioctl(fd_.get(), kGetSupportedCpuid, cpuid.data()) == 0) {
        host_.cpuid = cpuid.Entries();
        return absl::OkStatus();
      }
      if (errno != E2BIG) return ErrnoStatus(errno, "KVM_GET_SUPPORTED_CPUID");
    }
    return absl::InternalError("KVM_GET_SUPPORTED_CPUID wants more than 1024 entries");
  }

  UniqueFd fd_;
  HostFacts host_;
  HostLimits limits_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Hypervisor>> OpenKvm() {
  UniqueFd fd(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!fd) {
    const int error = errno;
    if (error == EACCES || error == EPERM) {
      return absl::PermissionDeniedError(
          "/dev/kvm: this user may not open it; add the user to the group that owns it (often "
          "kvm)");
    }
    return absl::FailedPreconditionError(
        absl::StrCat("/dev/kvm: ", std::strerror(error),
                     "; load kvm_intel or kvm_amd, and enable virtualization in the firmware or "
                     "the outer hypervisor"));
  }
  auto kvm = std::make_unique<Kvm>(std::move(fd));
  RETURN_IF_ERROR(kvm->Initialize());
  return kvm;
}

}  // namespace bothy::hypervisor::kvm
