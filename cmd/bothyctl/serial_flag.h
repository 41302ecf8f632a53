// SerialFlag: one --serial of the command line, "PORT=WHERE".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "support/status.h"

namespace bothy::bothyctl {

struct SerialFlag {
  uint32_t port = 0;        // 0 is COM1; whether the machine has it is the server's to say
  bool terminal = false;    // "-": the port is on this terminal
  std::string socket_path;  // else: as given
  bool connect = false;     // ",connect"
};

// From "0=/run/com1.sock", "1=/run/com2.sock,connect", "com2=PATH" (any case) or "0=-".
// InvalidArgument says what is wrong.
absl::StatusOr<SerialFlag> ParseSerialFlag(std::string_view text);

}  // namespace bothy::bothyctl
