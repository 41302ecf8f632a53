// The legacy LZ4 frame that `lz4 -l` writes and the kernel reads: a magic number, then blocks of a
// 32-bit packed size and that many bytes, each of which unpacks to at most 8 MiB on its own. The
// kernel's build appends the unpacked size of the whole in 4 bytes.
#include <lz4.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "boot/large_buffer.h"
#include "boot/payload_codecs.h"
#include "support/check.h"
#include "support/endian.h"
#include "support/mapping.h"

namespace bothy::boot {
namespace {

constexpr uint32_t kMagic = 0x184C'2102;
constexpr size_t kBlockBytes = size_t{8} << 20;
constexpr size_t kMaxPackedBytes = LZ4_COMPRESSBOUND(kBlockBytes);
constexpr size_t kAppendedSizeBytes = 4;

class Lz4Decoder final : public PayloadDecoder {
 public:
  explicit Lz4Decoder(PayloadSource source) : source_(std::move(source)) {}

  absl::StatusOr<size_t> Read(std::span<uint8_t> out) override {
    size_t done = 0;
    while (done < out.size()) {
      if (unread_.empty()) {
        ASSIGN_OR_RETURN(const size_t packed_bytes, NextBlock());
        if (packed_bytes == 0) break;
        // A whole block goes where it belongs; otherwise a part of it must wait.
        if (out.size() - done >= kBlockBytes) {
          ASSIGN_OR_RETURN(const size_t n, Unpack(packed_bytes, out.subspan(done, kBlockBytes)));
          done += n;
          continue;
        }
        RETURN_IF_ERROR(Allocate(block_, kBlockBytes));
        ASSIGN_OR_RETURN(const size_t n, Unpack(packed_bytes, block_.bytes()));
        unread_ = block_.bytes().first(n);
      }
      const size_t n = std::min(out.size() - done, unread_.size());
      std::memcpy(out.data() + done, unread_.data(), n);
      unread_ = unread_.subspan(n);
      done += n;
    }
    return done;
  }

  absl::StatusOr<std::optional<Block>> TakeBlock() override {
    CHECK(AtBlock());
    ASSIGN_OR_RETURN(const size_t packed_bytes, NextBlock());
    if (packed_bytes == 0) return std::nullopt;
    const Block block{.file_offset = source_.offset(),
                      .packed_bytes = packed_bytes,
                      .unpacked_bytes = kBlockBytes,
                      .unpack = &Decompress};
    source_.Skip(packed_bytes);
    return block;
  }
  [[nodiscard]] bool AtBlock() const override { return unread_.empty(); }

  // One block, which then needn't pass through block_.
  [[nodiscard]] size_t PreferredReadBytes() const override { return kBlockBytes; }
  [[nodiscard]] bool HasChecksum() const override { return false; }

 private:
  // The packed size of the next block, which the source stands before; 0 at the end.
  absl::StatusOr<size_t> NextBlock() {
    while (source_.left() > kAppendedSizeBytes) {
      std::array<uint8_t, 4> field;
      RETURN_IF_ERROR(source_.Take(field));
      const auto packed_bytes = LoadLe<uint32_t>(field.data());
      if (packed_bytes == kMagic) continue;  // at the start, and where frames were concatenated
      if (packed_bytes == 0 || packed_bytes > kMaxPackedBytes) {
        return absl::InvalidArgumentError(
            absl::StrCat("lz4 data is corrupt: a block of ", packed_bytes, " bytes"));
      }
      if (packed_bytes > source_.left()) {
        return absl::InvalidArgumentError("lz4 data is truncated");
      }
      return packed_bytes;
    }
    return 0;
  }

  absl::StatusOr<size_t> Unpack(size_t packed_bytes, std::span<uint8_t> out) {
    RETURN_IF_ERROR(Allocate(packed_, kMaxPackedBytes));
    const std::span<uint8_t> packed = packed_.bytes().first(packed_bytes);
    RETURN_IF_ERROR(source_.Take(packed));
    return Decompress(packed, out);
  }

  static absl::StatusOr<size_t> Decompress(std::span<const uint8_t> packed,
                                           std::span<uint8_t> out) {
    const int n = ::LZ4_decompress_safe(
        reinterpret_cast<const char*>(packed.data()), reinterpret_cast<char*>(out.data()),
        static_cast<int>(packed.size()), static_cast<int>(out.size()));
    if (n < 0) return absl::InvalidArgumentError("lz4 data is corrupt");
    return static_cast<size_t>(n);
  }

  static absl::Status Allocate(Mapping& mapping, size_t bytes) {
    if (mapping.size() != 0) return absl::OkStatus();
    ASSIGN_OR_RETURN(mapping, AllocateLargeBuffer(bytes));
    return absl::OkStatus();
  }

  PayloadSource source_;
  Mapping packed_;
  Mapping block_;
  std::span<const uint8_t> unread_;  // of block_
};

}  // namespace

absl::StatusOr<std::unique_ptr<PayloadDecoder>> NewLz4Decoder(PayloadSource source) {
  return std::make_unique<Lz4Decoder>(std::move(source));
}

}  // namespace bothy::boot
