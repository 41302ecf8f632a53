// OutputRing: the most recent bytes of a stream, addressed by their position in it.
//
// Position 0 is the first byte ever appended. Readers keep a position of their own and copy from
// there, so one ring serves a client's replay and its live output without gap or repetition.
// Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace bothy::chipset {

class OutputRing {
 public:
  // `capacity` in bytes, a power of two. Pages of the buffer become resident as they are written.
  explicit OutputRing(size_t capacity);

  void Append(std::span<const uint8_t> bytes);
  // The oldest position still here, and the one after the newest byte.
  [[nodiscard]] uint64_t begin() const { return end_ < capacity_ ? 0 : end_ - capacity_; }
  [[nodiscard]] uint64_t end() const { return end_; }
  // Copies from `position`, which lies in [begin(), end()], to `bytes`; says how many there were.
  size_t CopyFrom(uint64_t position, std::span<uint8_t> bytes) const;

 private:
  const size_t capacity_;
  const std::unique_ptr<uint8_t[]> buffer_;
  uint64_t end_ = 0;
};

}  // namespace bothy::chipset
