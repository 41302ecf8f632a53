// The JSON form of the contract's messages (protobuf's own mapping).
//
// Read: names as the .proto spells them or in lowerCamelCase. Written: as the .proto spells them,
// the spelling that error paths use.
#pragma once

#include <google/protobuf/message.h>

#include <string>
#include <string_view>

#include "support/status.h"

namespace bothy::bothyctl {

// Fills `message` from a JSON text. InvalidArgument says where and why.
absl::Status ParseJson(std::string_view json, google::protobuf::Message* message);

// The same from a file, or from standard input when `path` is "-". Errors are the system's or
// ParseJson's, and name the file.
absl::Status ReadJsonFile(const std::string& path, google::protobuf::Message* message);

// On several lines, with a newline at the end. Fields at their default are written, too, so that
// scripts needn't know the defaults. Internal when the message has no JSON form: a server may send
// a google.protobuf.Value that is no JSON.
absl::StatusOr<std::string> ToJson(const google::protobuf::Message& message);

// `text` as a JSON string, with its quotes; control characters become '?'.
std::string JsonString(std::string_view text);

}  // namespace bothy::bothyctl
