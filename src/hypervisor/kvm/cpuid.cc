#include "hypervisor/kvm/cpuid.h"

#include <asm/kvm_para.h>

#include <algorithm>
#include <bit>

namespace bothy::hypervisor::kvm {
namespace {

// Replaces bits [low, low + width) of `reg`.
void SetField(uint32_t& reg, unsigned low, unsigned width, uint32_t value) {
  const uint32_t mask = (width == 32 ? ~0U : ((1U << width) - 1)) << low;
  reg = (reg & ~mask) | ((value << low) & mask);
}

// Bits of an APIC id that number the cores of the one socket.
uint32_t CoreIdBits(uint32_t cpu_count) {
  return static_cast<uint32_t>(std::bit_width(cpu_count - 1));
}

// Leaf 4 (Intel) and 0x8000001D (AMD) have the same layout: cache type in EAX[4:0], level in
// EAX[7:5], CPUs that share it less one in EAX[25:14]. L3 is shared by the socket, the rest belongs
// to a core.
void FixCacheSharing(kvm_cpuid_entry2& entry, uint32_t cpu_count) {
  if ((entry.eax & 0x1F) == 0) return;
  const uint32_t level = (entry.eax >> 5) & 7;
  SetField(entry.eax, 14, 12, level >= 3 ? std::bit_ceil(cpu_count) - 1 : 0);
}

// Extended topology, leaves 0xB and 0x1F: threads, then cores.
void AppendExtendedTopology(std::vector<kvm_cpuid_entry2>& table, uint32_t leaf,
                            const CpuidOptions& options) {
  constexpr uint32_t kThread = 1 << 8;
  constexpr uint32_t kCore = 2 << 8;
  const auto level = [&](uint32_t index, uint32_t type, uint32_t shift, uint32_t count) {
    kvm_cpuid_entry2 entry{};
    entry.function = leaf;
    entry.index = index;
    entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    entry.eax = shift;
    entry.ebx = count;
    entry.ecx = type | index;
    entry.edx = options.apic_id;
    table.push_back(entry);
  };
  level(0, kThread, 0, 1);
  level(1, kCore, CoreIdBits(options.cpu_count), options.cpu_count);
  level(2, 0, 0, 0);
}

}  // namespace

std::vector<kvm_cpuid_entry2> BuildCpuid(const std::vector<kvm_cpuid_entry2>& supported,
                                         const CpuidOptions& options) {
  std::vector<kvm_cpuid_entry2> table;
  table.reserve(supported.size() + 6);
  bool has_extended_topology = false;
  for (kvm_cpuid_entry2 entry : supported) {
    switch (entry.function) {
      case 0x1:
        SetField(entry.ebx, 16, 8, std::min(options.cpu_count, 255U));
        SetField(entry.ebx, 24, 8, options.apic_id);
        entry.ecx |= 1U << 31;  // running on a hypervisor
        entry.ecx |= 1U << 21;  // x2APIC, which KVM always emulates
        if (options.tsc_deadline_timer) entry.ecx |= 1U << 24;
        SetField(entry.edx, 28, 1,
                 options.cpu_count > 1 ? 1 : 0);  // HTT: more than one logical CPU
        break;
      case 0x4:
        FixCacheSharing(entry, options.cpu_count);
        if ((entry.eax & 0x1F) != 0) {
          SetField(entry.eax, 26, 6, std::min(std::bit_ceil(options.cpu_count) - 1, 63U));
        }
        break;
      case 0x6:  // thermal and power management: KVM virtualizes the constant APIC timer only
        entry.eax &= 1U << 2;
        entry.ebx = 0;
        entry.ecx = 0;
        entry.edx = 0;
        break;
      case 0xB:
      case 0x1F:
        // Written anew below, once a leaf.
        if (entry.function == 0xB) has_extended_topology = true;
        continue;
      case KVM_CPUID_FEATURES:
        // A guest that is told of pages that take the host's I/O runs something else meanwhile:
        // when the I/O fails, over and over, no look at its vCPU would find it at that access
        // (KvmVcpu::ExposeEndlessFault).
        entry.eax &= ~(1U << KVM_FEATURE_ASYNC_PF | 1U << KVM_FEATURE_ASYNC_PF_VMEXIT |
                       1U << KVM_FEATURE_ASYNC_PF_INT);
        break;
      case 0x80000001:
        // CmpLegacy: on AMD, leaf 1's logical CPUs are cores.
        SetField(entry.ecx, 1, 1, options.cpu_count > 1 ? entry.ecx >> 1 & 1 : 0);
        break;
      case 0x80000007:
        // Without invariant TSC the guest keeps to the KVM clock, which a pause doesn't advance.
        entry.edx &= ~(1U << 8);
        break;
      case 0x80000008:
        SetField(entry.ecx, 0, 8, options.cpu_count - 1);
        SetField(entry.ecx, 12, 4, CoreIdBits(options.cpu_count));
        break;
      case 0x8000001D:
        FixCacheSharing(entry, options.cpu_count);
        break;
      case 0x8000001E:
        entry.eax = options.apic_id;
        SetField(entry.ebx, 0, 8, options.apic_id);  // core id
        SetField(entry.ebx, 8, 8, 0);                // threads per core less one
        entry.ecx = 0;                               // node 0 of one
        break;
      default:
        break;
    }
    table.push_back(entry);
  }
  if (has_extended_topology) AppendExtendedTopology(table, 0xB, options);
  return table;
}

uint32_t PhysicalAddressBits(const std::vector<kvm_cpuid_entry2>& supported) {
  for (const kvm_cpuid_entry2& entry : supported) {
    if (entry.function != 0x80000008) continue;
    // EAX[23:16], when set, is the guest's width under nested paging.
    const uint32_t host = entry.eax & 0xFF;
    const uint32_t guest = entry.eax >> 16 & 0xFF;
    return std::clamp(guest != 0 ? guest : host, 32U, 52U);
  }
  return 36;
}

}  // namespace bothy::hypervisor::kvm
