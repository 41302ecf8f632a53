#include "disk/utf16.h"

#include "support/endian.h"

namespace bothy::disk {
namespace {

constexpr uint32_t kHighSurrogate = 0xD800;
constexpr uint32_t kLowSurrogate = 0xDC00;
constexpr uint32_t kPastSurrogates = 0xE000;

void AppendUtf8(uint32_t point, std::string& text) {
  if (point < 0x80) {
    text.push_back(static_cast<char>(point));
    return;
  }
  const int trailing = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
  constexpr uint32_t kLead[] = {0, 0xC0, 0xE0, 0xF0};
  text.push_back(static_cast<char>(kLead[trailing] | (point >> (6 * trailing))));
  for (int i = trailing - 1; i >= 0; --i) {
    text.push_back(static_cast<char>(0x80 | ((point >> (6 * i)) & 0x3F)));
  }
}

}  // namespace

absl::StatusOr<std::string> Utf16ToUtf8(std::span<const uint8_t> bytes) {
  if (bytes.size() % 2 != 0) return absl::InvalidArgumentError("half a UTF-16 character");
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 2) {
    uint32_t point = LoadLe<uint16_t>(bytes.data() + i);
    if (point == 0) return absl::InvalidArgumentError("a NUL in a string");
    if (point >= kHighSurrogate && point < kPastSurrogates) {
      if (point >= kLowSurrogate || i + 4 > bytes.size()) {
        return absl::InvalidArgumentError("a lone UTF-16 surrogate");
      }
      const uint32_t low = LoadLe<uint16_t>(bytes.data() + i + 2);
      if (low < kLowSurrogate || low >= kPastSurrogates) {
        return absl::InvalidArgumentError("a lone UTF-16 surrogate");
      }
      point = 0x10000 + ((point - kHighSurrogate) << 10) + (low - kLowSurrogate);
      i += 2;
    }
    AppendUtf8(point, text);
  }
  return text;
}

absl::StatusOr<std::vector<uint8_t>> Utf8ToUtf16(std::string_view text) {
  std::vector<uint8_t> bytes;
  const auto append = [&bytes](uint32_t unit) {
    bytes.push_back(static_cast<uint8_t>(unit));
    bytes.push_back(static_cast<uint8_t>(unit >> 8));
  };
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i++]);
    const int trailing = lead < 0x80             ? 0
                         : (lead & 0xE0) == 0xC0 ? 1
                         : (lead & 0xF0) == 0xE0 ? 2
                         : (lead & 0xF8) == 0xF0 ? 3
                                                 : -1;
    if (trailing < 0 || i + static_cast<size_t>(trailing) > text.size()) {
      return absl::InvalidArgumentError("not UTF-8");
    }
    uint32_t point = trailing == 0 ? lead : lead & (0x3FU >> trailing);
    for (int k = 0; k < trailing; ++k) {
      const auto next = static_cast<uint8_t>(text[i++]);
      if ((next & 0xC0) != 0x80) return absl::InvalidArgumentError("not UTF-8");
      point = (point << 6) | (next & 0x3F);
    }
    constexpr uint32_t kSmallest[] = {1, 0x80, 0x800, 0x10000};
    if (point < kSmallest[trailing] || point > 0x10FFFF ||
        (point >= kHighSurrogate && point < kPastSurrogates)) {
      return absl::InvalidArgumentError(point == 0 ? "a NUL in a string" : "not UTF-8");
    }
    if (point < 0x10000) {
      append(point);
    } else {
      append(kHighSurrogate + ((point - 0x10000) >> 10));
      append(kLowSurrogate + ((point - 0x10000) & 0x3FF));
    }
  }
  return bytes;
}

}  // namespace bothy::disk
