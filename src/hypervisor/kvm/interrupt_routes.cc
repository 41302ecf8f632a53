#include "hypervisor/kvm/interrupt_routes.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>

#include "hypervisor/kvm/flexible_arrays.h"
#include "hypervisor/kvm/ioctl.h"
#include "support/check.h"
#include "support/log.h"
#include "support/unique_fd.h"

namespace bothy::hypervisor::kvm {
namespace {

// What KVM_CREATE_IRQCHIP sets up: GSI n is pin n of the I/O APIC and, below 16, of the PICs.
std::vector<kvm_irq_routing_entry> ControllerPins() {
  std::vector<kvm_irq_routing_entry> entries;
  const auto add = [&](uint32_t gsi, uint32_t chip, uint32_t pin) {
    kvm_irq_routing_entry entry{};
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip.irqchip = chip;
    entry.u.irqchip.pin = pin;
    entries.push_back(entry);
  };
  for (uint32_t gsi = 0; gsi < kIoApicPins; ++gsi) {
    if (gsi < 16) {
      add(gsi, gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % 8);
    }
    add(gsi, KVM_IRQCHIP_IOAPIC, gsi);
  }
  return entries;
}

// Messages for the local APICs lie in the first 4 GiB (Intel SDM 3A, 11.11.1), so one fits into an
// atomic: a signal always sees an address and the data that belongs to it.
constexpr uint64_t kNoMessage = 0;

uint64_t Pack(const MsiMessage& message) {
  if (message.address >> 32 != 0) return kNoMessage;
  return message.address << 32 | message.data;
}

class KvmMsiRoute final : public MsiRoute {
 public:
  KvmMsiRoute(int vm_fd, InterruptRoutes& routes) : vm_fd_(vm_fd), routes_(routes) {}

  ~KvmMsiRoute() override {
    if (!gsi_.has_value()) return;
    // Finds what EventFd has bound.
    if (!held_) CHECK_OK(BindEvent(KVM_IRQFD_FLAG_DEASSIGN));
    routes_.Free(*gsi_);
  }

  void Signal() override {
    const uint64_t packed = packed_.load(std::memory_order_acquire);
    if (packed == kNoMessage) return;
    kvm_msi msi{};
    msi.address_lo = static_cast<uint32_t>(packed >> 32);
    msi.data = static_cast<uint32_t>(packed);
    // Fails when the guest's message makes no sense to its APICs.
    (void)::ioctl(vm_fd_, KVM_SIGNAL_MSI, &msi);
  }

  void Update(const MsiMessage& message) override {
    packed_.store(Pack(message), std::memory_order_release);
    const std::lock_guard lock(mutex_);
    if (message_ == message) return;
    message_ = message;
    if (!gsi_.has_value()) return;
    if (const absl::Status status = routes_.Route(*gsi_, message); !status.ok()) {
      routes_.log().Log(LogLevel::kError, "kvm", std::string(status.message()));
    }
  }

  absl::StatusOr<int> EventFd() override {
    const std::lock_guard lock(mutex_);
    if (gsi_.has_value()) return event_.get();
    UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!event) return ErrnoStatus(errno, "making an interrupt's eventfd");
    ASSIGN_OR_RETURN(const uint32_t gsi, routes_.Allocate());
    absl::Status status;
    if (message_.has_value()) status = routes_.Route(gsi, *message_);
    if (status.ok()) {
      gsi_ = gsi;
      event_ = std::move(event);
      if (!held_) status = BindEvent(0);
    }
    if (!status.ok()) {
      gsi_.reset();
      event_.Reset();
      routes_.Free(gsi);
      return status;
    }
    return event_.get();
  }

  void Hold(bool held) override {
    const std::lock_guard lock(mutex_);
    if (held == held_) return;
    if (gsi_.has_value()) {
      // KVM looks at an eventfd when it is bound: what waits there is sent then.
      const absl::Status status = BindEvent(held ? KVM_IRQFD_FLAG_DEASSIGN : 0);
      if (!status.ok()) {
        routes_.log().Log(LogLevel::kError, "kvm", std::string(status.message()));
        return;
      }
    }
    held_ = held;
  }

 private:
  absl::Status BindEvent(uint32_t flags) const {
    kvm_irqfd irqfd{};
    irqfd.fd = static_cast<uint32_t>(event_.get());
    irqfd.gsi = *gsi_;
    irqfd.flags = flags;
    return Ioctl(vm_fd_, KVM_IRQFD, &irqfd, "binding an eventfd to an interrupt");
  }

  const int vm_fd_;
  InterruptRoutes& routes_;
  std::atomic<uint64_t> packed_{kNoMessage};
  std::mutex mutex_;
  std::optional<MsiMessage> message_;  // guarded by mutex_
  std::optional<uint32_t> gsi_;        // guarded by mutex_; set when there is an eventfd
  UniqueFd event_;                     // guarded by mutex_
  bool held_ = false;                  // guarded by mutex_; the eventfd isn't bound
};

}  // namespace

InterruptRoutes::InterruptRoutes(int vm_fd, uint32_t max_routes)
    : vm_fd_(vm_fd), max_gsis_(max_routes), pins_(ControllerPins()) {}

absl::StatusOr<uint32_t> InterruptRoutes::Allocate() {
  const std::lock_guard lock(mutex_);
  uint32_t gsi = kIoApicPins;
  for (const uint32_t taken : allocated_) {
    if (taken != gsi) break;
    ++gsi;
  }
  // Every GSI may need an entry, beside those of the pins; GSIs themselves are as many.
  if (gsi >= max_gsis_ || pins_.size() + allocated_.size() >= max_gsis_) {
    return absl::ResourceExhaustedError("KVM has no more interrupt routes");
  }
  allocated_.insert(gsi);
  return gsi;
}

void InterruptRoutes::Free(uint32_t gsi) {
  const std::lock_guard lock(mutex_);
  CHECK(allocated_.erase(gsi) == 1);
  if (messages_.erase(gsi) == 0) return;
  // A smaller table than before can't be refused but for want of host memory, and then the entry
  // that stays is one that nothing is bound to.
  if (const absl::Status status = Commit(); !status.ok()) {
    log_.Log(LogLevel::kError, "kvm", std::string(status.message()));
  }
}

absl::Status InterruptRoutes::Route(uint32_t gsi, const MsiMessage& message) {
  const std::lock_guard lock(mutex_);
  CHECK(allocated_.contains(gsi));
  const auto [at, added] = messages_.try_emplace(gsi, message);
  if (!added) {
    if (at->second == message) return absl::OkStatus();
    at->second = message;
  }
  return Commit();
}

size_t InterruptRoutes::routed() const {
  const std::lock_guard lock(mutex_);
  return messages_.size();
}

absl::Status InterruptRoutes::Commit() {
  std::vector<kvm_irq_routing_entry> entries = pins_;
  for (const auto& [gsi, message] : messages_) {
    kvm_irq_routing_entry entry{};
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = static_cast<uint32_t>(message.address);
    entry.u.msi.address_hi = static_cast<uint32_t>(message.address >> 32);
    entry.u.msi.data = message.data;
    entries.push_back(entry);
  }
  CountedArray<kvm_irq_routing_entry> table{std::span<const kvm_irq_routing_entry>(entries)};
  return Ioctl(vm_fd_, kSetGsiRouting, table.data(), "setting interrupt routes");
}

std::unique_ptr<MsiRoute> CreateKvmMsiRoute(int vm_fd, InterruptRoutes& routes) {
  return std::make_unique<KvmMsiRoute>(vm_fd, routes);
}

}  // namespace bothy::hypervisor::kvm
