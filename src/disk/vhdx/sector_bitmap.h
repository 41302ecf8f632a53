// Bits of sector bitmaps ([MS-VHDX] 2.4): bit 0 of byte 0 is the first sector.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>

#include "disk/vhdx/format.h"
#include "support/endian.h"

namespace bothy::disk::vhdx {

inline constexpr uint32_t kBitsPerPage = kPageBytes * 8;

// The length of the run of bits like bit `from`, at most up to `to`, of a page.
[[nodiscard]] inline uint32_t BitRun(std::span<const uint8_t, kPageBytes> page, uint32_t from,
                                     uint32_t to, bool& set) {
  uint32_t at = from;
  set = (page[from / 8] >> (from % 8) & 1) != 0;
  const uint64_t flip = set ? ~uint64_t{0} : 0;
  while (at < to) {
    // A one is a bit that differs.
    const uint64_t word = (LoadLe<uint64_t>(page.data() + size_t{at / 64} * 8) ^ flip) >> (at % 64);
    if (word != 0) return std::min(at + static_cast<uint32_t>(std::countr_zero(word)), to) - from;
    at = at / 64 * 64 + 64;
  }
  return to - from;
}

[[nodiscard]] inline bool AllBits(std::span<const uint8_t, kPageBytes> page, uint32_t from,
                                  uint32_t to, bool wanted) {
  bool set = false;
  return BitRun(page, from, to, set) == to - from && set == wanted;
}

inline void FillBits(std::span<uint8_t, kPageBytes> page, uint32_t from, uint32_t to, bool value) {
  while (from < to) {
    const uint32_t within = from % 64;
    const uint32_t count = std::min(64 - within, to - from);
    const uint64_t mask = (count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1) << within;
    uint8_t* word = page.data() + size_t{from / 64} * 8;
    const auto bits = LoadLe<uint64_t>(word);
    StoreLe(word, value ? bits | mask : bits & ~mask);
    from += count;
  }
}

}  // namespace bothy::disk::vhdx
