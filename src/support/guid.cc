#include "support/guid.h"

#include <sys/random.h>

#include "absl/strings/str_cat.h"
#include "support/check.h"

namespace bothy {
namespace {

// Which stored byte the n-th pair of hex digits shows.
constexpr std::array<uint8_t, 16> kTextOrder = {3, 2, 1,  0,  5,  4,  7,  6,
                                                8, 9, 10, 11, 12, 13, 14, 15};
constexpr bool HyphenBefore(size_t pair) {
  return pair == 4 || pair == 6 || pair == 8 || pair == 10;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string Guid::ToString() const {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (size_t pair = 0; pair < kTextOrder.size(); ++pair) {
    if (HyphenBefore(pair)) text += '-';
    const uint8_t byte = bytes[kTextOrder[pair]];
    text += kDigits[byte >> 4];
    text += kDigits[byte & 0xF];
  }
  return text;
}

absl::StatusOr<Guid> Guid::Parse(std::string_view text) {
  const auto malformed = [whole = std::string(text)] {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", whole, "\" is no GUID; one looks like 01234567-89ab-cdef-0123-456789abcdef"));
  };
  std::string_view rest = text;
  if (rest.starts_with('{') && rest.ends_with('}')) rest = rest.substr(1, rest.size() - 2);
  if (rest.size() != 36) return malformed();
  Guid guid;
  size_t at = 0;
  for (size_t pair = 0; pair < kTextOrder.size(); ++pair) {
    if (HyphenBefore(pair) && rest[at++] != '-') return malformed();
    const int high = HexDigit(rest[at]);
    const int low = HexDigit(rest[at + 1]);
    if (high < 0 || low < 0) return malformed();
    guid.bytes[kTextOrder[pair]] = static_cast<uint8_t>(high << 4 | low);
    at += 2;
  }
  return guid;
}

Guid Guid::Random() {
  Guid guid;
  CHECK(::getrandom(guid.bytes.data(), guid.bytes.size(), 0) ==
        static_cast<ssize_t>(guid.bytes.size()));
  guid.bytes[7] = static_cast<uint8_t>((guid.bytes[7] & 0x0F) | 0x40);
  guid.bytes[8] = static_cast<uint8_t>((guid.bytes[8] & 0x3F) | 0x80);
  return guid;
}

}  // namespace bothy
