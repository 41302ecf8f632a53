#include "virtio/net/toeplitz_hash.h"

#include <algorithm>

#include "support/check.h"
#include "support/endian.h"

namespace bothy::virtio {

ToeplitzHash::ToeplitzHash(std::span<const uint8_t> key) {
  std::array<uint8_t, kKeyBytes> whole{};
  std::copy_n(key.begin(), std::min(key.size(), whole.size()), whole.begin());
  for (size_t nibble = 0; nibble < table_.size(); ++nibble) {
    // The key's bits from this nibble's byte on; the last ones are of no use here.
    const size_t byte = nibble / 2;
    const uint64_t bits =
        (uint64_t{LoadBe<uint32_t>(&whole[byte])} << 8) | whole[byte + sizeof(uint32_t)];
    for (uint32_t value = 0; value < 16; ++value) {
      for (uint32_t bit = 0; bit < 4; ++bit) {
        if ((value & (8U >> bit)) == 0) continue;
        const size_t from_bit = 4 * (nibble % 2) + bit;
        table_[nibble][value] ^= static_cast<uint32_t>(bits >> (8 - from_bit));
      }
    }
  }
}

uint32_t ToeplitzHash::Of(std::span<const uint8_t> input) const {
  CHECK(input.size() <= kMostInputBytes);
  uint32_t hash = 0;
  for (size_t i = 0; i < input.size(); ++i) {
    hash ^= table_[2 * i][input[i] >> 4] ^ table_[2 * i + 1][input[i] & 0xF];
  }
  return hash;
}

}  // namespace bothy::virtio
