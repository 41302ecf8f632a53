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

// Copies the first `bytes` from some buffers to others, which have as many. A guest may have them
// overlap: what is in them then is its own affair.
inline void CopyBetween(std::span<const iovec> from, std::span<const iovec> to, size_t bytes) {
  size_t read = 0;     // of from.front()
  size_t written = 0;  // of to.front()
  while (bytes != 0) {
    const size_t part =
        std::min({bytes, from.front().iov_len - read, to.front().iov_len - written});
    std::memmove(static_cast<uint8_t*>(to.front().iov_base) + written,
                 static_cast<const uint8_t*>(from.front().iov_base) + read, part);
    bytes -= part;
    read += part;
    written += part;
    if (read == from.front().iov_len) {
      from = from.subspan(1);
      read = 0;
    }
    if (written == to.front().iov_len) {
      to = to.subspan(1);
      written = 0;
    }
  }
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
