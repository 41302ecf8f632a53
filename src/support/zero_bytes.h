// Whether memory is zero, at the speed of memcmp.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>

namespace bothy {

// No bytes are.
inline bool IsZero(std::span<const uint8_t> bytes) {
  // Most of those that aren't zero show it at once.
  if (bytes.empty() || bytes[0] != 0) return bytes.empty();
  return std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

}  // namespace bothy
