// KvmDoorbell: guest writes that ring an eventfd inside the kernel (KVM_IOEVENTFD).
#pragma once

#include <memory>

#include "hypervisor/vm.h"
#include "support/status.h"

namespace bothy::hypervisor::kvm {

absl::StatusOr<std::unique_ptr<Doorbell>> AttachKvmDoorbell(int vm_fd,
                                                            const DoorbellOptions& options);

}  // namespace bothy::hypervisor::kvm
