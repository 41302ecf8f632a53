// The hypervisor on Linux/KVM: the only folder, beside vfio/, that makes KVM ioctls.
#pragma once

#include <memory>

#include "hypervisor/vm.h"
#include "support/status.h"

namespace bothy::hypervisor::kvm {

// Opens /dev/kvm. FailedPrecondition when there is none or it lacks a capability bothy needs (the
// message names it), PermissionDenied when this user may not open it.
absl::StatusOr<std::unique_ptr<Hypervisor>> OpenKvm();

}  // namespace bothy::hypervisor::kvm
