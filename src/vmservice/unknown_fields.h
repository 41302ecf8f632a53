// A request with a field that this build's contract doesn't know is refused, never half-obeyed.
#pragma once

#include "support/status.h"

namespace google::protobuf {
class Message;
}

namespace bothy::vmservice {

// InvalidArgument naming the first unknown field, at any depth: "config.memory_config: unknown
// field 17". Map values, repeated and oneof messages included.
absl::Status RefuseUnknownFields(const google::protobuf::Message& message);

}  // namespace bothy::vmservice
