// ToeplitzHash: the hash that receive-side scaling steers by (virtio 1.2, 5.1.6.4.3): the exclusive
// or of 32 bits of the key for each bit of the input that is set, those from that bit on.
//
// Four bits at a time, from a table that is made of the key. Immutable: any thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace bothy::virtio {

class ToeplitzHash {
 public:
  static constexpr size_t kKeyBytes = 40;
  // Two addresses of IPv6 and two ports.
  static constexpr size_t kMostInputBytes = kKeyBytes - sizeof(uint32_t);

  // A key that is shorter than kKeyBytes ends in zeros, one that is longer is cut.
  explicit ToeplitzHash(std::span<const uint8_t> key);

  // Of up to kMostInputBytes.
  [[nodiscard]] uint32_t Of(std::span<const uint8_t> input) const;

 private:
  std::array<std::array<uint32_t, 16>, 2 * kMostInputBytes> table_{};
};

}  // namespace bothy::virtio
