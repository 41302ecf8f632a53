// From a CreateVMRequest to a MachineConfig: everything that can be checked without touching the
// host.
//
// Pure. Errors name the field by its path from the request's root:
// "config.serial_config.ports[1].port: 4 is out of range 0..3".
#pragma once

#include <string>

#include "machine/config.h"
#include "support/status.h"
#include "vmservice.pb.h"

namespace bothy::vmservice {

// InvalidArgument for values that contradict contract.md, Unimplemented for fields whose capability
// this build doesn't have.
absl::StatusOr<machine::MachineConfig> TranslateCreateRequest(
    const ::vmservice::CreateVMRequest& request);

// What the log says of the entries of extra_data that aren't this server's; empty: there are none.
std::string ForeignExtraData(const ::vmservice::VMConfig& config);

}  // namespace bothy::vmservice
