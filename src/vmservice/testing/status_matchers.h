// Matchers of absl::Status by code and message.
#pragma once

#include <gmock/gmock.h>

#include <string>

#include "absl/status/status.h"

namespace bothy::vmservice {

MATCHER_P2(Is, code, message, "") {
  *result_listener << arg;
  return arg.code() == code && std::string(arg.message()) == message;
}

// The message begins with `path` and a colon.
MATCHER_P2(IsAbout, code, path, "") {
  *result_listener << arg;
  return arg.code() == code && std::string(arg.message()).starts_with(std::string(path) + ": ");
}

}  // namespace bothy::vmservice
