// Loads and stores of fixed-endian integers at any alignment, for wire, disk and firmware formats.
// The caller has checked that sizeof(T) bytes are there.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>

namespace bothy {

static_assert(std::endian::native == std::endian::little, "bothy runs on little-endian hosts");

template <std::unsigned_integral T>
[[nodiscard]] constexpr T ByteSwap(T value) {
  if constexpr (sizeof(T) == 1) {
    return value;
  } else if constexpr (sizeof(T) == 2) {
    return __builtin_bswap16(value);
  } else if constexpr (sizeof(T) == 4) {
    return __builtin_bswap32(value);
  } else {
    return __builtin_bswap64(value);
  }
}

template <std::unsigned_integral T>
[[nodiscard]] T LoadLe(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <std::unsigned_integral T>
void StoreLe(void* to, T value) {
  std::memcpy(to, &value, sizeof value);
}
template <std::unsigned_integral T>
[[nodiscard]] T LoadBe(const void* from) {
  return ByteSwap(LoadLe<T>(from));
}
template <std::unsigned_integral T>
void StoreBe(void* to, T value) {
  StoreLe(to, ByteSwap(value));
}

}  // namespace bothy
