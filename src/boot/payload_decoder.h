// PayloadDecoder: the uncompressed bytes of a kernel, in order, whatever they are packed with.
//
// A bzImage carries its vmlinux as one gzip, xz, zstd or LZ4 (legacy frame) stream, or as it is.
// The caller pulls pieces of it through a small buffer, so that no second copy of the kernel
// exists. Everything read is hostile: no codec writes beyond the span it was given, and memory is
// bounded by kMaxWindowBytes whatever the stream claims.
//
//   ASSIGN_OR_RETURN(auto decoder, PayloadDecoder::Create(file, offset, length));
//   ASSIGN_OR_RETURN(size_t n, decoder->Read(buffer));   // n < buffer.size(): that was all
//
// Not thread-safe. Decoders keep a reference to the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
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

  // Fills `out` with the next bytes; fewer only when the stream has ended, where gzip, xz and zstd
  // verify the stream's own checksum. InvalidArgument for corrupt or truncated data,
  // ResourceExhausted when the codec can't get memory.
  virtual absl::StatusOr<size_t> Read(std::span<uint8_t> out) = 0;

  // A part of the payload that can be unpacked by itself, on any thread.
  struct Block {
    uint64_t file_offset = 0;
    size_t packed_bytes = 0;
    size_t unpacked_bytes = 0;  // of the last one at most that
    // Unpacks `packed` to `out`, of unpacked_bytes: how many it were. InvalidArgument for corrupt
    // data.
    absl::StatusOr<size_t> (*unpack)(std::span<const uint8_t> packed,
                                     std::span<uint8_t> out) = nullptr;
  };
  // Whether TakeBlock may be called instead of Read: the format has independent blocks, and the
  // last Read ended between two of them.
  [[nodiscard]] virtual bool AtBlock() const { return false; }
  // The next block, for the caller to unpack; none at the end of the stream. Errors as of Read.
  virtual absl::StatusOr<std::optional<Block>> TakeBlock() { return std::nullopt; }

  // The size of `out`, in bytes, that Read is quickest with.
  [[nodiscard]] virtual size_t PreferredReadBytes() const { return size_t{512} << 10; }

  // Whether there is a checksum at the end, which makes it worth reading on until there.
  [[nodiscard]] virtual bool HasChecksum() const { return true; }
};

}  // namespace bothy::boot
