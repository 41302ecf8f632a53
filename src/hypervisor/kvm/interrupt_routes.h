// InterruptRoutes: KVM's table of where GSIs go, and MSIs that get one of their own.
//
// KVM knows one table a VM and takes it whole: the pins of the interrupt controllers, as KVM has
// them by itself, and a message for each GSI above them that an eventfd is bound to. Setting it
// waits for every vCPU, so it is set only when a message behind an eventfd has changed; messages
// that the process itself sends need no entry (KVM_SIGNAL_MSI).
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "hypervisor/interrupts.h"
#include "support/log.h"
#include "support/status.h"

namespace bothy::hypervisor::kvm {

// Pins of the I/O APIC, with the PICs behind the first sixteen.
inline constexpr uint32_t kIoApicPins = 24;

// Thread-safe.
class InterruptRoutes {
 public:
  // `max_routes`: KVM_CAP_IRQ_ROUTING.
  InterruptRoutes(int vm_fd, uint32_t max_routes);

  // A GSI without a message yet. ResourceExhausted when KVM has no more.
  absl::StatusOr<uint32_t> Allocate();
  void Free(uint32_t gsi);
  absl::Status Route(uint32_t gsi, const MsiMessage& message);
  [[nodiscard]] size_t routed() const;

  // For what a route has to say.
  [[nodiscard]] LogLimiter& log() { return log_; }

 private:
  absl::Status Commit();  // holds mutex_

  const int vm_fd_;
  const uint32_t max_gsis_;
  const std::vector<kvm_irq_routing_entry> pins_;
  LogLimiter log_;  // the guest programs routes
  mutable std::mutex mutex_;
  std::set<uint32_t> allocated_;             // guarded by mutex_
  std::map<uint32_t, MsiMessage> messages_;  // guarded by mutex_
};

// `routes` outlives it.
std::unique_ptr<MsiRoute> CreateKvmMsiRoute(int vm_fd, InterruptRoutes& routes);

}  // namespace bothy::hypervisor::kvm
