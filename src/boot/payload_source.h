// PayloadSource: reads a byte range of a file front to back through one small buffer.
// Private to the payload decoders.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "boot/boot_file.h"

namespace bothy::boot {

class PayloadSource {
 public:
  PayloadSource(const BootFile& file, uint64_t offset, uint64_t length)
      : file_(&file), offset_(offset), left_(length) {}

  // Bytes not taken yet.
  [[nodiscard]] uint64_t left() const { return left_; }

  // The next bytes, as many as the buffer holds; empty at the end. Valid until the next call.
  absl::StatusOr<std::span<const uint8_t>> NextChunk() {
    buffer_.resize(std::min<uint64_t>(left_, kChunkBytes));
    RETURN_IF_ERROR(Take(buffer_));
    return std::span<const uint8_t>(buffer_);
  }
  // Fills `out`, which is no larger than left().
  absl::Status Take(std::span<uint8_t> out) {
    RETURN_IF_ERROR(file_->ReadAt(offset_, out));
    Skip(out.size());
    return absl::OkStatus();
  }
  // Where the next byte lies in the file.
  [[nodiscard]] uint64_t offset() const { return offset_; }
  // Passes over `bytes`, no more than left().
  void Skip(uint64_t bytes) {
    offset_ += bytes;
    left_ -= bytes;
  }

 private:
  // Large enough that system calls don't count, small enough to stay in the CPU's cache.
  static constexpr uint64_t kChunkBytes = uint64_t{128} << 10;

  const BootFile* file_;
  uint64_t offset_;
  uint64_t left_;
  std::vector<uint8_t> buffer_;
};

}  // namespace bothy::boot
