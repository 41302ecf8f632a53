// Looking at bytes that a guest or other threads may store to meanwhile, which is meant to be so.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace bothy::virtio {

// Whether all of them were zero when each was looked at. Out of ThreadSanitizer's sight.
__attribute__((noinline, no_sanitize("thread"))) inline bool AllZero(
    std::span<const uint8_t> bytes) {
  using Words = std::array<uint64_t, 4>;
  const uint8_t* at = bytes.data();
  size_t left = bytes.size();
  for (; left >= sizeof(Words); at += sizeof(Words), left -= sizeof(Words)) {
    Words words;
    __builtin_memcpy(words.data(), at, sizeof words);
    if ((words[0] | words[1] | words[2] | words[3]) != 0) return false;
  }
  uint8_t any = 0;
  for (; left != 0; ++at, --left) any |= *at;
  return any == 0;
}

}  // namespace bothy::virtio
