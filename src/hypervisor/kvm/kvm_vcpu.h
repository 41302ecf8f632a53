// KvmVcpu: one KVM virtual CPU.
#pragma once

#include <linux/kvm.h>
#include <pthread.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "hypervisor/kvm/fault_counts.h"
#include "hypervisor/vm.h"
#include "support/log.h"
#include "support/mapping.h"
#include "support/unique_fd.h"

namespace bothy::hypervisor::kvm {

class KvmVcpu final : public Vcpu {
 public:
  struct Options {
    uint32_t index = 0;
    const std::vector<kvm_cpuid_entry2>* cpuid = nullptr;
    size_t run_size_bytes = 0;  // KVM_GET_VCPU_MMAP_SIZE
  };
  static absl::StatusOr<std::unique_ptr<KvmVcpu>> Create(int vm_fd, const Options& options);
  ~KvmVcpu() override;

  RunResult Run(ExitHandler& handler) override;
  void Kick() override;
  void ExposeEndlessFault() override;
  [[nodiscard]] ExitCounts exit_counts() const override;
  absl::Status SetEntry(const EntryRegisters& entry) override;
  absl::Status CapturePowerOnState() override;
  absl::Status RestorePowerOnState() override;

  // The offset of the guest's TSC from the host's; Unimplemented where KVM can't tell.
  absl::StatusOr<uint64_t> GetTscOffset() const;
  absl::Status SetTscOffset(uint64_t offset);
  // Tells the guest's watchdogs that it was stopped. A guest that doesn't use the KVM clock has
  // none to tell.
  void NotifyClockStopped();

 private:
  struct PowerOnState;
  KvmVcpu(uint32_t index, UniqueFd fd, Mapping run);
  // Has KVM_RUN return EINTR, the one that is under way or the next one. Any thread.
  void Interrupt();
  // After EINTR; whether Kick was called.
  bool OnInterrupted();
  void HoldInterruptsForOneInstruction();
  void HandlePort(ExitHandler& handler);
  void HandleMmio(ExitHandler& handler);
  RunResult ReportFailure(const char* what);

  const uint32_t index_;
  UniqueFd fd_;
  Mapping run_mapping_;
  kvm_run* const run_;
  LogLimiter log_;
  std::mutex thread_mutex_;
  pthread_t thread_{};   // in Run; guarded by thread_mutex_
  bool in_run_ = false;  // guarded by thread_mutex_
  // What Interrupt was called for.
  std::atomic<bool> kicked_{false};
  std::atomic<bool> expose_fault_{false};
  // ExposeEndlessFault's.
  absl::StatusOr<FaultCounts> fault_counts_;
  uint64_t last_unresolved_ = 0;
  std::atomic<uint64_t> port_exits_{0};
  std::atomic<uint64_t> mmio_exits_{0};
  std::atomic<uint64_t> interrupted_exits_{0};
  std::atomic<uint64_t> other_exits_{0};
  std::unique_ptr<PowerOnState> power_on_;
};

}  // namespace bothy::hypervisor::kvm
