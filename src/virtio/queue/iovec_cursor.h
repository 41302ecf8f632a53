// Walks the buffers of a chain: headers off the front, the rest as buffers for I/O.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace bothy::virtio {

// Copies the first `bytes.size()` bytes out of `buffers`, each once; false when there are fewer.
inline bool CopyFrom(std::span<const iovec> buffers, std::span<uint8_t> bytes) {
  for (const iovec& buffer : buffers) {
    if (bytes.empty()) break;
    const size_t part = std::min(buffer.iov_len, bytes.size());
    std::memcpy(bytes.data(), buffer.iov_base, part);
    bytes = bytes.subspan(part);
  }
  return bytes.empty();
}

// The other way.
inline bool CopyTo(std::span<const uint8_t> bytes, std::span<const iovec> buffers) {
  for (const iovec& buffer : buffers) {
    if (bytes.empty()) break;
    const size_t part = std::min(buffer.iov_len, bytes.size());
    std::memcpy(buffer.iov_base, bytes.data(), part);
    bytes = bytes.subspan(part);
  }
  return bytes.empty();
}

// What of `buffers` lies behind the first `skip` bytes, put into `rest`.
inline void BuffersBehind(std::span<const iovec> buffers, uint64_t skip, std::vector<iovec>& rest) {
  rest.clear();
  for (const iovec& buffer : buffers) {
    if (skip >= buffer.iov_len) {
      skip -= buffer.iov_len;
      continue;
    }
    rest.push_back({.iov_base = static_cast<uint8_t*>(buffer.iov_base) + skip,
                    .iov_len = buffer.iov_len - skip});
    skip = 0;
  }
}

}  // namespace bothy::virtio
