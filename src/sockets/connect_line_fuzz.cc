// The CONNECT line: whatever comes, in whatever pieces, ends the same way.
#include <cstdint>
#include <string_view>
#include <variant>

#include "sockets/connect_line.h"
#include "support/check.h"

using bothy::sockets::ConnectLine;
using bothy::sockets::NoConnectLine;
using bothy::sockets::ParseConnectLine;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto whole = ParseConnectLine(text);
  if (const auto* const line = std::get_if<ConnectLine>(&whole)) {
    CHECK(line->bytes <= bothy::sockets::kMostConnectLine);
    CHECK(text[line->bytes - 1] == '\n');
  }
  for (size_t length = 0; length < size; ++length) {
    const auto part = ParseConnectLine(text.substr(0, length));
    if (const auto* const line = std::get_if<ConnectLine>(&part)) {
      const auto* const same = std::get_if<ConnectLine>(&whole);
      CHECK(same != nullptr && same->port == line->port && same->bytes == line->bytes);
    } else if (std::get<NoConnectLine>(part) == NoConnectLine::kMalformed) {
      CHECK(std::holds_alternative<NoConnectLine>(whole));
      CHECK(std::get<NoConnectLine>(whole) == NoConnectLine::kMalformed);
    }
  }
  return 0;
}
