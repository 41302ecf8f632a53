// Network cards of a request as the machine's plain values.
//
// Pure. Errors name the field by its path.
#pragma once

#include <string>

#include "machine/config.h"
#include "support/status.h"
#include "vmservice.pb.h"

namespace bothy::vmservice {

// An update needs a backend but no address; for a removal the card's identity is enough.
enum class NicPurpose { kAdd, kUpdate, kRemove };

// `path` is the message's: "nic_config", "config.devices_config.nic_config[3]".
absl::StatusOr<machine::NicConfig> TranslateNic(const ::vmservice::NICConfig& nic,
                                                const std::string& path, NicPurpose purpose);

// All cards of a VM that is to be created. AlreadyExists when two have one identity or address.
absl::Status TranslateNics(const ::vmservice::DevicesConfig& devices, machine::MachineConfig& out);

// An entry of extra_data whose key begins with machine::kNicKeyPrefix ("bothy.nic.<nic_id>.vhost");
// `path` is the entry's. docs/extra-data.md lists them.
absl::Status TranslateNicTuning(const std::string& key, const std::string& value,
                                const std::string& path, machine::MachineConfig& out);

}  // namespace bothy::vmservice
