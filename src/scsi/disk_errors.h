// What a failed operation of a disk is to the guest.
#pragma once

#include <string_view>

#include "disk/request.h"
#include "scsi/sense.h"
#include "support/status.h"

namespace bothy::scsi {

[[nodiscard]] std::string_view OperationName(disk::Operation operation);

// A full host is DATA PROTECT, SPACE ALLOCATION FAILED (SBC-4, 4.7.3.6), which guests take for what
// it is. What the host can't read or write, or an image that is damaged or cut off, is a medium
// error; what a disk should never say is an internal target failure.
[[nodiscard]] Condition ConditionOf(disk::Operation operation, const absl::Status& status);

}  // namespace bothy::scsi
