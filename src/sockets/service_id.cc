#include "sockets/service_id.h"

#include <charconv>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace bothy::sockets {
namespace {

constexpr char kTemplate[] = "-facb-11e6-bd58-64006a7986d3";
constexpr size_t kTemplateBytes = sizeof kTemplate - 1;
constexpr size_t kPortDigits = 8;

}  // namespace

absl::StatusOr<uint32_t> PortOfServiceId(std::string_view service_id) {
  uint32_t port = 0;
  if (service_id.size() == kPortDigits + kTemplateBytes &&
      absl::AsciiStrToLower(std::string(service_id.substr(kPortDigits))) == kTemplate) {
    const char* const end = service_id.data() + kPortDigits;
    const auto [stop, error] = std::from_chars(service_id.data(), end, port, 16);
    if (error == std::errc() && stop == end) return port;
  }
  constexpr size_t kMostShown = 64;
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", std::string(service_id.substr(0, kMostShown)),
      "\" is no vsock port's; write the port as 8 hexadecimal digits and ", kTemplate));
}

std::string ServiceIdOfPort(uint32_t port) {
  return absl::StrCat(absl::Hex(port, absl::kZeroPad8), kTemplate);
}

}  // namespace bothy::sockets
