#include "hypervisor/kvm/kvm_doorbell.h"

#include <linux/kvm.h>

#include "hypervisor/kvm/ioctl.h"
#include "support/check.h"

namespace bothy::hypervisor::kvm {
namespace {

class KvmDoorbell final : public Doorbell {
 public:
  KvmDoorbell(int vm_fd, const kvm_ioeventfd& doorbell) : vm_fd_(vm_fd), doorbell_(doorbell) {}
  ~KvmDoorbell() override {
    doorbell_.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
    // Finds what Attach has made, whatever happens to the host's memory.
    CHECK_OK(Ioctl(vm_fd_, KVM_IOEVENTFD, &doorbell_, "detaching a doorbell"));
  }

 private:
  const int vm_fd_;
  kvm_ioeventfd doorbell_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Doorbell>> AttachKvmDoorbell(int vm_fd,
                                                            const DoorbellOptions& options) {
  CHECK(options.size_bytes != 0 || !options.match.has_value());
  kvm_ioeventfd doorbell{};
  doorbell.addr = options.guest_physical;
  doorbell.len = options.size_bytes;
  doorbell.fd = options.event_fd;
  if (options.match.has_value()) {
    doorbell.datamatch = *options.match;
    doorbell.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
  }
  RETURN_IF_ERROR(Ioctl(vm_fd, KVM_IOEVENTFD, &doorbell, "attaching a doorbell"));
  return std::make_unique<KvmDoorbell>(vm_fd, doorbell);
}

}  // namespace bothy::hypervisor::kvm
