// The kinds of change on the wire.
#pragma once

#include "machine/machine.h"
#include "support/status.h"
#include "vmservice.pb.h"

namespace bothy::vmservice {

// InvalidArgument, naming the field "type", for a number that is none.
absl::StatusOr<machine::Change> TranslateModifyType(::vmservice::ModifyType type);

}  // namespace bothy::vmservice
