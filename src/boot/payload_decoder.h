// PayloadDecoder: the uncompressed bytes of a kernel, in order, whatever they are packed with.
//
// A bzImage carries its vmlinux as one gzip, xz, zstd or LZ4 (legacy frame) stream, or as it is; a
// vmlinux file is "packed" with nothing. The caller pulls bytes straight to where they belong
// (guest RAM), so that no second copy of the kernel exists. Everything read is hostile: no codec
// writes beyond the span it was given, and memory is bounded by kMaxWindowBytes whatever the
// stream claims.
//
//   ASSIGN_OR_RETURN(auto decoder, PayloadDecoder::Create(file, offset, length));
//   ASSIGN_OR_RETURN(size_t n, decoder->Read(headers));   // n < headers.size(): that was all
//
// Not thread-safe. Decoders keep a reference to the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "boot/boot_file.h"
#include "support/status.h"

namespace bothy::boot {

// The largest history a stream may refer back to; `zstd --ultra -22`, which kernels use, needs
// exactly this.
inline constexpr uint64_t kMaxWindowBytes = uint64_t{128} << 20;

class PayloadDecoder {
 public:
  virtual ~PayloadDecoder() = default;

  // A decoder for file bytes [offset, offset + length), which lie within the file, chosen by their
  // first bytes. InvalidArgument for a format that isn't known.
  static absl::StatusOr<std::unique_ptr<PayloadDecoder>> Create(const BootFile& file,
                                                                uint64_t offset, uint64_t length);

  // Fills `out` with the next bytes; fewer only when the stream has ended. InvalidArgument for
  // corrupt or truncated data, ResourceExhausted when the codec can't get memory.
  virtual absl::StatusOr<size_t> Read(std::span<uint8_t> out) = 0;

  // Passes over the next `bytes` bytes of output, fewer when the stream ends before that.
  virtual absl::Status Skip(uint64_t bytes);

  // Consumes what is left, at most `limit` bytes of output, so that the checksum at the stream's
  // end (gzip, xz, zstd; LZ4's legacy frame has none) is verified.
  virtual absl::Status Finish(uint64_t limit);
};

}  // namespace bothy::boot
