// Guid: 128-bit identifier in the form Windows stores it.
//
// The first three fields are little-endian numbers, the last eight bytes stand as they are
// ([MS-DTYP] 2.3.4.2); the text form shows the numbers big-endian, so byte 3 comes first. Formats
// that store it in network order (VHD1) say so where they do.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "support/status.h"

namespace bothy {

struct Guid {
  std::array<uint8_t, 16> bytes{};  // as stored

  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the comparison with 0 for one.
  auto operator<=>(const Guid&) const = default;
  [[nodiscard]] bool is_zero() const { return bytes == decltype(bytes){}; }

  // "01234567-89ab-cdef-0123-456789abcdef", lower case.
  [[nodiscard]] std::string ToString() const;
  // The same, any case, with or without braces; InvalidArgument for anything else.
  static absl::StatusOr<Guid> Parse(std::string_view text);
  // For constants: FromFields(0x2DC27766, 0xF623, 0x4200, {0x9D, ...}).
  static constexpr Guid FromFields(uint32_t a, uint16_t b, uint16_t c,
                                   const std::array<uint8_t, 8>& d) {
    Guid guid;
    for (int i = 0; i < 4; ++i) guid.bytes[i] = static_cast<uint8_t>(a >> (8 * i));
    for (int i = 0; i < 2; ++i) guid.bytes[4 + i] = static_cast<uint8_t>(b >> (8 * i));
    for (int i = 0; i < 2; ++i) guid.bytes[6 + i] = static_cast<uint8_t>(c >> (8 * i));
    for (int i = 0; i < 8; ++i) guid.bytes[8 + i] = d[i];
    return guid;
  }
  // A fresh random one (RFC 4122, version 4).
  static Guid Random();
};

}  // namespace bothy
