// Pieces of scattered buffers.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "support/check.h"

namespace bothy::disk {

// Calls `use(uint8_t*, size_t)` for each contiguous piece of `length` bytes from byte `skip` on.
template <typename Use>
void ForEachPiece(std::span<const iovec> buffers, uint64_t skip, uint64_t length, Use use) {
  for (const iovec& buffer : buffers) {
    if (length == 0) return;
    if (skip >= buffer.iov_len) {
      skip -= buffer.iov_len;
      continue;
    }
    const size_t part = std::min<uint64_t>(length, buffer.iov_len - skip);
    use(static_cast<uint8_t*>(buffer.iov_base) + skip, part);
    skip = 0;
    length -= part;
  }
  CHECK(length == 0);
}

inline std::vector<iovec> Slice(std::span<const iovec> buffers, uint64_t skip, uint64_t length) {
  std::vector<iovec> slice;
  ForEachPiece(buffers, skip, length, [&slice](uint8_t* data, size_t size) {
    slice.push_back({.iov_base = data, .iov_len = size});
  });
  return slice;
}

inline void FillZero(std::span<const iovec> buffers, uint64_t skip, uint64_t length) {
  ForEachPiece(buffers, skip, length,
               [](uint8_t* data, size_t size) { std::memset(data, 0, size); });
}

inline void CopyInto(std::span<const iovec> buffers, uint64_t skip,
                     std::span<const uint8_t> bytes) {
  ForEachPiece(buffers, skip, bytes.size(), [&bytes](uint8_t* data, size_t size) {
    std::memcpy(data, bytes.data(), size);
    bytes = bytes.subspan(size);
  });
}

}  // namespace bothy::disk
