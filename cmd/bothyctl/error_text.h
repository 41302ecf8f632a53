// Errors as one line for people and scripts: "CreateVM: InvalidArgument: config.…: why".
#pragma once

#include <string>
#include <string_view>

#include "support/status.h"

namespace bothy::bothyctl {

// The code as gRPC spells it: "InvalidArgument". A number for codes that have no name.
std::string StatusName(absl::StatusCode code);

// "WHAT: StatusName: message", always one line: control characters, which a server may have put
// there, become '?', and ends of lines become "; ".
std::string ErrorLine(std::string_view what, const absl::Status& status);

// The text with control characters other than tab made harmless for a terminal, and on one line.
std::string OneLine(std::string_view text);

// Writes "bothyctl: `line`" to standard error, in colour on a terminal.
void PrintError(std::string_view line);

}  // namespace bothy::bothyctl
