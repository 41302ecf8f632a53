// FuzzInput: a fuzzer's bytes as the operands of its operations.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace bothy {

class FuzzInput {
 public:
  explicit FuzzInput(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  // Little-endian, as x86-64 is. Bytes past the input's end are zero.
  template <std::integral T>
  T Take() {
    T value = 0;
    const size_t size = std::min(sizeof value, bytes_.size());
    if (size != 0) std::memcpy(&value, bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
    return value;
  }

 private:
  std::span<const uint8_t> bytes_;
};

}  // namespace bothy
