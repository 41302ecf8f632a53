#include "hypervisor/kvm/kvm_vcpu.h"

#include <csignal>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "hypervisor/kvm/flexible_arrays.h"
#include "hypervisor/kvm/ioctl.h"
#include "support/check.h"
#include "support/log.h"

namespace bothy::hypervisor::kvm {
namespace {

constexpr uint32_t kMsrMtrrDefType = 0x2FF;
constexpr uint64_t kMtrrEnabledWriteBack = 1U << 11 | 6;
constexpr uint32_t kMsrMiscEnable = 0x1A0;
constexpr uint64_t kMiscEnableFastString = 1;

constexpr uint64_t kRflagsTrap = 1U << 8;
constexpr uint64_t kRflagsInterrupt = 1U << 9;

int KickSignal() { return SIGRTMIN; }

// The signal only has to end KVM_RUN with EINTR.
void InstallKickHandler() {
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    CHECK(::sigaction(KickSignal(), &action, nullptr) == 0);
    return true;
  }();
  (void)installed;
}

kvm_segment ToKvm(const Segment& segment) {
  kvm_segment out{};
  out.selector = segment.selector;
  out.base = segment.base;
  out.limit = segment.limit;
  out.type = segment.type;
  out.present = 1;
  out.s = segment.code_or_data ? 1 : 0;
  out.l = segment.long_mode ? 1 : 0;
  out.db = segment.default_32 ? 1 : 0;
  out.g = segment.granularity_4k ? 1 : 0;
  return out;
}

}  // namespace

// What a machine reset brings back. The MSRs are those that a booting kernel writes to.
struct KvmVcpu::PowerOnState {
  kvm_regs regs{};
  kvm_sregs sregs{};
  kvm_fpu fpu{};
  kvm_xcrs xcrs{};
  kvm_debugregs debug{};
  kvm_vcpu_events events{};
  kvm_lapic_state lapic{};
  kvm_mp_state mp{};
  std::vector<kvm_msr_entry> msrs;
};

KvmVcpu::KvmVcpu(uint32_t index, UniqueFd fd, Mapping run)
    : index_(index),
      fd_(std::move(fd)),
      run_mapping_(std::move(run)),
      run_(reinterpret_cast<kvm_run*>(run_mapping_.data())) {}

KvmVcpu::~KvmVcpu() = default;

absl::StatusOr<std::unique_ptr<KvmVcpu>> KvmVcpu::Create(int vm_fd, const Options& options) {
  InstallKickHandler();
  UniqueFd fd(IoctlResult(vm_fd, KVM_CREATE_VCPU, static_cast<unsigned long>(options.index)));
  if (!fd) return ErrnoStatus(errno, absl::StrCat("creating vCPU ", options.index));
  ASSIGN_OR_RETURN(Mapping run, Mapping::Create(options.run_size_bytes, PROT_READ | PROT_WRITE,
                                                MAP_SHARED, fd.get(), 0, "mapping a vCPU"));
  auto vcpu = std::unique_ptr<KvmVcpu>(new KvmVcpu(options.index, std::move(fd), std::move(run)));

  CountedArray<kvm_cpuid_entry2> cpuid(std::span<const kvm_cpuid_entry2>(*options.cpuid));
  RETURN_IF_ERROR(Ioctl(vcpu->fd_.get(), kSetCpuid2, cpuid.data(), "setting CPUID"));

  // Firmware would have enabled MTRRs with write-back as the default type on every CPU; MMIO is
  // uncached through the guest's own page tables.
  kvm_msr_entry entries[2] = {};
  entries[0].index = kMsrMtrrDefType;
  entries[0].data = kMtrrEnabledWriteBack;
  entries[1].index = kMsrMiscEnable;
  entries[1].data = kMiscEnableFastString;
  CountedArray<kvm_msr_entry> msrs{std::span<const kvm_msr_entry>(entries)};
  RETURN_IF_ERROR(Ioctl(vcpu->fd_.get(), kSetMsrs, msrs.data(), "setting MSRs"));
  // Now: while a vCPU runs, ioctls on it wait.
  vcpu->fault_counts_ = FaultCounts::Open(vcpu->fd_.get());
  return vcpu;
}

absl::Status KvmVcpu::SetEntry(const EntryRegisters& entry) {
  kvm_sregs sregs{};
  RETURN_IF_ERROR(Ioctl(fd_.get(), KVM_GET_SREGS, &sregs, "reading vCPU segments"));
  sregs.cs = ToKvm(entry.cs);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = ToKvm(entry.data);
  sregs.tr = ToKvm(entry.tr);
  sregs.gdt = {};
  sregs.gdt.base = entry.gdt_base;
  sregs.gdt.limit = entry.gdt_limit;
  sregs.idt = {};
  sregs.cr0 = entry.cr0;
  sregs.cr3 = entry.cr3;
  sregs.cr4 = entry.cr4;
  sregs.efer = entry.efer;
  RETURN_IF_ERROR(Ioctl(fd_.get(), KVM_SET_SREGS, &sregs, "setting vCPU segments"));
  kvm_regs regs{};
  regs.rip = entry.rip;
  regs.rsp = entry.rsp;
  regs.rbx = entry.rbx;
  regs.rsi = entry.rsi;
  regs.rflags = entry.rflags;
  return Ioctl(fd_.get(), KVM_SET_REGS, &regs, "setting vCPU registers");
}

void KvmVcpu::Interrupt() {
  __atomic_store_n(&run_->immediate_exit, 1, __ATOMIC_SEQ_CST);
  const std::lock_guard lock(thread_mutex_);
  if (in_run_) ::pthread_kill(thread_, KickSignal());
}

void KvmVcpu::Kick() {
  kicked_ = true;
  Interrupt();
}

// A fault for which the host has to do I/O is handed to a thread of KVM's, and the vCPU waits as if
// it was halted. That thread doesn't tell that it failed (async_pf_execute): the vCPU goes on,
// meets the same fault, and so on. Only where the guest couldn't take an interrupt just now does
// KVM do the I/O itself (kvm_can_do_async_pf), and KVM_RUN fails with EFAULT when that does.
void KvmVcpu::ExposeEndlessFault() {
  if (fault_counts_.ok()) {
    const absl::StatusOr<uint64_t> unresolved = fault_counts_->Unresolved();
    // One that doesn't count can't be told from one that does so for ever.
    if (unresolved.ok() && std::exchange(last_unresolved_, *unresolved) == *unresolved) return;
  }
  expose_fault_ = true;
  Interrupt();
}

bool KvmVcpu::OnInterrupted() {
  interrupted_exits_.fetch_add(1, std::memory_order_relaxed);
  // What is asked for after this store makes the next KVM_RUN return at once; what was before it is
  // seen now.
  __atomic_store_n(&run_->immediate_exit, 0, __ATOMIC_SEQ_CST);
  if (expose_fault_.exchange(false)) HoldInterruptsForOneInstruction();
  return kicked_.exchange(false);
}

// As the instruction after an STI, which the guest's next one may well be. Where that wouldn't be a
// state that a processor can be in, the next call of ExposeEndlessFault may find another.
void KvmVcpu::HoldInterruptsForOneInstruction() {
  kvm_mp_state mp{};
  kvm_regs regs{};
  kvm_vcpu_events events{};
  if (::ioctl(fd_.get(), KVM_GET_MP_STATE, &mp) != 0 ||
      ::ioctl(fd_.get(), KVM_GET_REGS, &regs) != 0 ||
      ::ioctl(fd_.get(), KVM_GET_VCPU_EVENTS, &events) != 0) {
    return;
  }
  // One that is halted would sleep through its interrupts.
  if (mp.mp_state != KVM_MP_STATE_RUNNABLE) return;
  // With interrupts disabled it can't be that fault; single-stepping has conditions of its own for
  // entering a guest (Intel SDM 3C, 26.3.1.5).
  if ((regs.rflags & (kRflagsInterrupt | kRflagsTrap)) != kRflagsInterrupt) return;
  if (events.exception.injected != 0 || events.exception.pending != 0 ||
      events.interrupt.injected != 0 || events.nmi.injected != 0 || events.smi.smm != 0) {
    return;
  }
  events.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
  events.flags = KVM_VCPUEVENT_VALID_SHADOW;
  static_cast<void>(::ioctl(fd_.get(), KVM_SET_VCPU_EVENTS, &events));
}

RunResult KvmVcpu::Run(ExitHandler& handler) {
  {
    const std::lock_guard lock(thread_mutex_);
    thread_ = ::pthread_self();
    in_run_ = true;
  }
  RunResult result = RunResult::kKicked;
  for (bool stop = false; !stop;) {
    if (::ioctl(fd_.get(), KVM_RUN, 0) < 0) {
      if (errno == EINTR) {
        stop = OnInterrupted();
        continue;
      }
      if (errno == EAGAIN) continue;  // an AP that isn't started yet was woken
      if (errno == EFAULT) {
        result = RunResult::kMemoryFault;
        break;
      }
      result = ReportFailure(absl::StrCat("KVM_RUN: ", std::strerror(errno)).c_str());
      break;
    }
    switch (run_->exit_reason) {
      case KVM_EXIT_IO:
        HandlePort(handler);
        break;
      case KVM_EXIT_MMIO:
        HandleMmio(handler);
        break;
      case KVM_EXIT_SHUTDOWN:
        result = RunResult::kTripleFault;
        stop = true;
        break;
      case KVM_EXIT_SYSTEM_EVENT:
        result = run_->system_event.type == KVM_SYSTEM_EVENT_RESET ? RunResult::kReset
                                                                   : RunResult::kTripleFault;
        stop = true;
        break;
      case KVM_EXIT_INTR:
      case KVM_EXIT_IRQ_WINDOW_OPEN:
        other_exits_.fetch_add(1, std::memory_order_relaxed);
        break;
      case KVM_EXIT_INTERNAL_ERROR:
        result = ReportFailure(
            absl::StrCat("KVM internal error, suberror ", run_->internal.suberror).c_str());
        stop = true;
        break;
      case KVM_EXIT_FAIL_ENTRY:
        result = ReportFailure(absl::StrFormat("VM entry failed, hardware reason 0x%x",
                                               run_->fail_entry.hardware_entry_failure_reason)
                                   .c_str());
        stop = true;
        break;
      default:
        result = ReportFailure(absl::StrCat("unexpected exit ", run_->exit_reason).c_str());
        stop = true;
        break;
    }
  }
  const std::lock_guard lock(thread_mutex_);
  in_run_ = false;
  return result;
}

void KvmVcpu::HandlePort(ExitHandler& handler) {
  port_exits_.fetch_add(1, std::memory_order_relaxed);
  const auto& io = run_->io;
  uint8_t* data = run_mapping_.data() + io.data_offset;
  for (uint32_t i = 0; i < io.count; ++i, data += io.size) {
    if (io.direction == KVM_EXIT_IO_IN) {
      handler.PortRead(io.port, {data, io.size});
    } else {
      handler.PortWrite(io.port, {data, io.size});
    }
  }
}

void KvmVcpu::HandleMmio(ExitHandler& handler) {
  mmio_exits_.fetch_add(1, std::memory_order_relaxed);
  auto& mmio = run_->mmio;
  if (mmio.is_write != 0) {
    handler.MmioWrite(mmio.phys_addr, {mmio.data, mmio.len});
  } else {
    handler.MmioRead(mmio.phys_addr, {mmio.data, mmio.len});
  }
}

RunResult KvmVcpu::ReportFailure(const char* what) {
  kvm_regs regs{};
  const bool known = ::ioctl(fd_.get(), KVM_GET_REGS, &regs) == 0;
  // A guest that a crash restarts may do this for ever.
  log_.Log(LogLevel::kError, "kvm",
           absl::StrFormat("vCPU %d: %s at rip 0x%x", index_, what, known ? regs.rip : 0));
  return RunResult::kEmulationFailure;
}

ExitCounts KvmVcpu::exit_counts() const {
  return {.port = port_exits_.load(std::memory_order_relaxed),
          .mmio = mmio_exits_.load(std::memory_order_relaxed),
          .interrupted = interrupted_exits_.load(std::memory_order_relaxed),
          .other = other_exits_.load(std::memory_order_relaxed)};
}

absl::Status KvmVcpu::CapturePowerOnState() {
  auto state = std::make_unique<PowerOnState>();
  const int fd = fd_.get();
  RETURN_IF_ERROR(Ioctl(fd, KVM_GET_REGS, &state->regs, "reading registers"));
  RETURN_IF_ERROR(Ioctl(fd, KVM_GET_SREGS, &state->sregs, "reading segments"));
  RETURN_IF_ERROR(Ioctl(fd, KVM_GET_FPU, &state->fpu, "reading the FPU"));
  RETURN_IF_ERROR(Ioctl(fd, KVM_GET_XCRS, &state->xcrs, "reading XCRs"));
  RETURN_IF_ERROR(Ioctl(fd, KVM_GET_DEBUGREGS, &state->debug, "reading debug registers"));
  RETURN_IF_ERROR(Ioctl(fd, KVM_GET_VCPU_EVENTS, &state->events, "reading pending events"));
  RETURN_IF_ERROR(Ioctl(fd, KVM_GET_LAPIC, &state->lapic, "reading the local APIC"));
  RETURN_IF_ERROR(Ioctl(fd, KVM_GET_MP_STATE, &state->mp, "reading the MP state"));
  // Architectural and paravirtual MSRs that a booted kernel changes and the next one expects clear.
  constexpr uint32_t kMsrs[] = {
      0x010,                                                // TSC
      0x174,           0x175,      0x176,                   // SYSENTER
      0x277,                                                // PAT
      kMsrMtrrDefType,                                      //
      kMsrMiscEnable,                                       //
      0x6E0,                                                // TSC deadline
      0xC0000081,      0xC0000082, 0xC0000083, 0xC0000084,  // syscall
      0xC0000100,      0xC0000101, 0xC0000102,              // FS, GS, kernel GS base
      0xC0000103,                                           // TSC_AUX
      0x4B564D00,      0x4B564D01,                          // KVM wall clock, system time
      0x4B564D02,      0x4B564D03, 0x4B564D04,  // async page faults, steal time, end of interrupt
  };
  for (const uint32_t index : kMsrs) {
    kvm_msr_entry entry{};
    entry.index = index;
    CountedArray<kvm_msr_entry> msrs{std::span<const kvm_msr_entry>(&entry, 1)};
    // Those this host doesn't have are no part of its guests' state.
    if (::ioctl(fd, kGetMsrs, msrs.data()) == 1) state->msrs.push_back(msrs.Entries()[0]);
  }
  power_on_ = std::move(state);
  return absl::OkStatus();
}

absl::Status KvmVcpu::RestorePowerOnState() {
  CHECK(power_on_ != nullptr);
  const int fd = fd_.get();
  // A pending port or MMIO access is completed first: KVM would otherwise finish it into the new
  // registers.
  __atomic_store_n(&run_->immediate_exit, 1, __ATOMIC_SEQ_CST);
  (void)::ioctl(fd, KVM_RUN, 0);
  static_cast<void>(OnInterrupted());
  // MP state before the local APIC and segments: KVM resets parts of a vCPU that leaves the INIT
  // state.
  RETURN_IF_ERROR(Ioctl(fd, KVM_SET_MP_STATE, &power_on_->mp, "setting the MP state"));
  RETURN_IF_ERROR(Ioctl(fd, KVM_SET_SREGS, &power_on_->sregs, "setting segments"));
  RETURN_IF_ERROR(Ioctl(fd, KVM_SET_REGS, &power_on_->regs, "setting registers"));
  RETURN_IF_ERROR(Ioctl(fd, KVM_SET_FPU, &power_on_->fpu, "setting the FPU"));
  // None on a host without XSAVE, where KVM refuses the call as well.
  if (power_on_->xcrs.nr_xcrs != 0) {
    RETURN_IF_ERROR(Ioctl(fd, KVM_SET_XCRS, &power_on_->xcrs, "setting XCRs"));
  }
  RETURN_IF_ERROR(Ioctl(fd, KVM_SET_DEBUGREGS, &power_on_->debug, "setting debug registers"));
  RETURN_IF_ERROR(Ioctl(fd, KVM_SET_LAPIC, &power_on_->lapic, "setting the local APIC"));
  RETURN_IF_ERROR(Ioctl(fd, KVM_SET_VCPU_EVENTS, &power_on_->events, "setting pending events"));
  for (const kvm_msr_entry& entry : power_on_->msrs) {
    CountedArray<kvm_msr_entry> msrs{std::span<const kvm_msr_entry>(&entry, 1)};
    RETURN_IF_ERROR(
        Ioctl(fd, kSetMsrs, msrs.data(), absl::StrFormat("setting MSR 0x%x", entry.index)));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> KvmVcpu::GetTscOffset() const {
  uint64_t offset = 0;
  kvm_device_attr attr{};
  attr.group = KVM_VCPU_TSC_CTRL;
  attr.attr = KVM_VCPU_TSC_OFFSET;
  attr.addr = reinterpret_cast<uint64_t>(&offset);
  if (::ioctl(fd_.get(), KVM_HAS_DEVICE_ATTR, &attr) != 0) {
    return absl::UnimplementedError("KVM doesn't tell TSC offsets (needs Linux 5.16)");
  }
  RETURN_IF_ERROR(Ioctl(fd_.get(), KVM_GET_DEVICE_ATTR, &attr, "reading the TSC offset"));
  return offset;
}

absl::Status KvmVcpu::SetTscOffset(uint64_t offset) {
  kvm_device_attr attr{};
  attr.group = KVM_VCPU_TSC_CTRL;
  attr.attr = KVM_VCPU_TSC_OFFSET;
  attr.addr = reinterpret_cast<uint64_t>(&offset);
  return Ioctl(fd_.get(), KVM_SET_DEVICE_ATTR, &attr, "setting the TSC offset");
}

void KvmVcpu::NotifyClockStopped() { (void)::ioctl(fd_.get(), KVM_KVMCLOCK_CTRL, 0); }

}  // namespace bothy::hypervisor::kvm
