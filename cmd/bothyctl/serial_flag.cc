#include "cmd/bothyctl/serial_flag.h"

#include <charconv>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace bothy::bothyctl {
namespace {

absl::Status Malformed(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("\"", std::string(text), "\": ", std::string(why),
                                                 ": write PORT=PATH[,connect] or PORT=-"));
}

}  // namespace

absl::StatusOr<SerialFlag> ParseSerialFlag(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos) return Malformed(text, "has no \"=\"");
  SerialFlag flag;

  std::string_view port = text.substr(0, equals);
  const bool com = absl::AsciiStrToLower(std::string(port.substr(0, 3))) == "com";
  if (com) port.remove_prefix(3);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), flag.port);
  if (error != std::errc() || end != port.data() + port.size() || (com && flag.port == 0)) {
    return Malformed(text, "the port is neither a number nor COM1 to COM4");
  }
  if (com) --flag.port;

  std::string_view where = text.substr(equals + 1);
  if (where == "-") {
    flag.terminal = true;
    return flag;
  }
  constexpr std::string_view kConnect = ",connect";
  if (where.ends_with(kConnect)) {
    flag.connect = true;
    where.remove_suffix(kConnect.size());
  }
  if (where.empty()) return Malformed(text, "the path is empty");
  flag.socket_path = std::string(where);
  return flag;
}

}  // namespace bothy::bothyctl
