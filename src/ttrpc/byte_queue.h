// ByteQueue: bytes waiting to be sent, in order; written at the back, taken off the front.
//
// One contiguous block that grows as needed and is given back when the queue runs empty after a
// burst. Writers fill reserved space in place, so a frame is serialised straight into the bytes
// that send(2) gets. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>

namespace bothy::ttrpc {

class ByteQueue {
 public:
  [[nodiscard]] size_t size() const { return end_ - begin_; }
  [[nodiscard]] bool empty() const { return begin_ == end_; }
  [[nodiscard]] const uint8_t* data() const { return block_.get() + begin_; }
  [[nodiscard]] size_t capacity() const { return capacity_; }

  // Adds `size` bytes at the back and returns them, not initialised, for the caller to fill.
  // Pointers of earlier calls are invalid after it.
  [[nodiscard]] uint8_t* Grow(size_t size) {
    if (capacity_ - end_ < size) MakeRoom(size);
    uint8_t* const space = block_.get() + end_;
    end_ += size;
    return space;
  }
  void Append(std::string_view bytes) {
    if (!bytes.empty()) std::memcpy(Grow(bytes.size()), bytes.data(), bytes.size());
  }
  // Drops the first `size` bytes.
  void Consume(size_t size) {
    begin_ += size;
    if (begin_ < end_) return;
    begin_ = end_ = 0;
    if (capacity_ > kKeep) {
      block_.reset();
      capacity_ = 0;
    }
  }
  // Drops everything and the memory with it.
  void Clear() {
    block_.reset();
    begin_ = end_ = capacity_ = 0;
  }

 private:
  static constexpr size_t kSmallest = 512;
  static constexpr size_t kKeep = 16 << 10;

  void MakeRoom(size_t size) {
    const size_t used = end_ - begin_;
    // Moving to the front is worth it only when it frees at least half, so that it stays amortised.
    if (capacity_ - used >= size && begin_ >= used) {
      std::memmove(block_.get(), block_.get() + begin_, used);
    } else {
      size_t capacity = capacity_ < kSmallest ? kSmallest : capacity_;
      while (capacity - used < size) capacity *= 2;
      std::unique_ptr<uint8_t[]> block(new uint8_t[capacity]);
      if (used > 0) std::memcpy(block.get(), block_.get() + begin_, used);
      block_ = std::move(block);
      capacity_ = capacity;
    }
    begin_ = 0;
    end_ = used;
  }

  std::unique_ptr<uint8_t[]> block_;
  size_t begin_ = 0;
  size_t end_ = 0;
  size_t capacity_ = 0;
};

}  // namespace bothy::ttrpc
