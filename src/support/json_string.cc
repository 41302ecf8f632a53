#include "support/json_string.h"

#include "support/utf8.h"

namespace bothy {
namespace {

constexpr size_t kLongestPart = 6;  // an escape; a character has up to four bytes

std::string Escape(unsigned char control) {
  constexpr char kHex[] = "0123456789abcdef";
  return std::string("\\u00") + kHex[control >> 4] + kHex[control & 15];
}

// The next escape or character of `text`, which it is taken from.
std::string TakePart(std::string_view* text) {
  const auto byte = static_cast<unsigned char>(text->front());
  size_t size = 1;
  // The bytes that go on with a character of several: 10xxxxxx.
  while (size < text->size() && (static_cast<unsigned char>((*text)[size]) & 0xC0) == 0x80) ++size;
  std::string part(text->substr(0, size));
  text->remove_prefix(size);
  if (part == "\"" || part == "\\") return "\\" + part;
  if (part == "\n") return "\\n";
  if (byte < 0x20 || byte == 0x7f) return Escape(byte);
  // The controls of U+0080..U+009F, which some terminals obey.
  if (byte == 0xC2 && size == 2 && static_cast<unsigned char>(part[1]) < 0xA0) {
    return Escape(static_cast<unsigned char>(part[1]));
  }
  return part;
}

}  // namespace

std::string JsonEscaped(std::string_view text, size_t limit) {
  // No more of it than can be shown: a replacement is longer than what it replaces.
  const std::string valid = ValidUtf8(text.substr(0, limit + 1));
  std::string_view rest = valid;
  std::string out;
  while (!rest.empty()) {
    if (out.size() + kLongestPart > limit) return out + "...";
    out += TakePart(&rest);
  }
  return out;
}

}  // namespace bothy
