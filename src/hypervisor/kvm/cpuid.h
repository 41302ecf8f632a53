// What a guest's CPUID instruction answers: the host's features as KVM supports them, with the
// topology of this machine (one socket, one thread a core) and the hypervisor leaves.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <vector>

namespace bothy::hypervisor::kvm {

struct CpuidOptions {
  uint32_t apic_id = 0;
  uint32_t cpu_count = 1;
  bool tsc_deadline_timer =
      false;  // the in-kernel LAPIC has it (not reported by KVM_GET_SUPPORTED_CPUID)
};

// `supported` (KVM_GET_SUPPORTED_CPUID) turned into one vCPU's table. Pure.
std::vector<kvm_cpuid_entry2> BuildCpuid(const std::vector<kvm_cpuid_entry2>& supported,
                                         const CpuidOptions& options);

// Guest-physical address bits that `supported` allows (leaf 0x80000008), 36 when it doesn't say.
uint32_t PhysicalAddressBits(const std::vector<kvm_cpuid_entry2>& supported);

}  // namespace bothy::hypervisor::kvm
