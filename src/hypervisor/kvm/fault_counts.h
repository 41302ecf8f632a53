// FaultCounts: KVM's own count of a vCPU's faults, from its binary statistics
// (Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD).
//
// Any thread, whatever the vCPU does, but Open.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy::hypervisor::kvm {

class FaultCounts {
 public:
  // Of the vCPU that `vcpu_fd` has open, which may be closed afterwards. Unimplemented when this
  // KVM doesn't count what is asked for here (it does from Linux 5.19 on). Not while the vCPU runs:
  // the call would wait for it.
  static absl::StatusOr<FaultCounts> Open(int vcpu_fd);

  // Faults of guest memory that ended without the access being possible, or carried out by KVM: the
  // guest met, or will meet, the same fault again. A fault that waits for the host's I/O counts,
  // until it is over. Modulo 2^64.
  [[nodiscard]] absl::StatusOr<uint64_t> Unresolved() const;

 private:
  // taken, and the ways in which one ends well.
  static constexpr size_t kCounters = 4;
  FaultCounts(UniqueFd fd, const std::array<uint64_t, kCounters>& offsets)
      : fd_(std::move(fd)), offsets_(offsets) {}

  UniqueFd fd_;
  std::array<uint64_t, kCounters> offsets_;  // in the statistics' file
};

}  // namespace bothy::hypervisor::kvm
