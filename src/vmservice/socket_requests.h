// Sockets between guest and host: what requests say of them, as the machine's plain values.
//
// Pure. Errors name the field by its path from the request's root.
#pragma once

#include <cstdint>
#include <string>

#include "machine/config.h"
#include "support/status.h"
#include "vmservice.pb.h"
#include "vmservice/resource_changes.h"

namespace bothy::vmservice {

// The key of extra_data that says the guest's CID, and its value; `path` is the entry's.
inline constexpr char kCidKey[] = "bothy.vsock.cid";
absl::StatusOr<uint64_t> TranslateCid(const std::string& value, const std::string& path);

// CreateVM's part: config.hvsocket_config.
absl::Status TranslateSockets(const ::vmservice::HVSocketConfig& config,
                              machine::SocketsConfig& out);

// VMSocket: a port's listener comes, goes or changes.
absl::StatusOr<ResourceChange> TranslateSocketRequest(const ::vmservice::VMSocketRequest& request);

}  // namespace bothy::vmservice
