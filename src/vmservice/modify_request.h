// From a ModifyResourceRequest to a ResourceChange: everything that can be checked without touching
// the host.
//
// Pure. Errors name the field by its path from the request's root: "scsi_disk.lun: 64 is out of
// range 0..63".
#pragma once

#include "support/status.h"
#include "vmservice.pb.h"
#include "vmservice/resource_changes.h"

namespace bothy::vmservice {

// InvalidArgument for values that contradict contract.md, a change that the resource doesn't allow
// ("ModifyResource", the table) among them; Unimplemented for resources that this build can't
// change.
absl::StatusOr<ResourceChange> TranslateModifyRequest(
    const ::vmservice::ModifyResourceRequest& request);

}  // namespace bothy::vmservice
