// libzstd in streaming mode: its window (kernels: up to 128 MiB, touched only as far as the stream
// reaches) holds the history.
// For an allocator of ours; we link the archive, whose interface doesn't change under us.
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>
#include <zstd_errors.h>

#include "absl/strings/str_cat.h"
#include "boot/large_buffer.h"
#include "boot/payload_codecs.h"

namespace bothy::boot {
namespace {

constexpr int kMaxWindowLog = 27;
static_assert(uint64_t{1} << kMaxWindowLog == kMaxWindowBytes);

constexpr ZSTD_customMem kAllocator = {
    .customAlloc = [](void*, size_t bytes) { return AllocateForCodec(bytes); },
    .customFree = [](void*, void* address) { FreeForCodec(address); },
    .opaque = nullptr,
};

class ZstdDecoder final : public PayloadDecoder {
 public:
  explicit ZstdDecoder(PayloadSource source) : source_(std::move(source)) {}
  ~ZstdDecoder() override { ::ZSTD_freeDCtx(context_); }
  ZstdDecoder(const ZstdDecoder&) = delete;
  ZstdDecoder& operator=(const ZstdDecoder&) = delete;

  [[nodiscard]] bool Init() {
    context_ = ::ZSTD_createDCtx_advanced(kAllocator);
    return context_ != nullptr &&
           !::ZSTD_isError(::ZSTD_DCtx_setParameter(context_, ZSTD_d_windowLogMax, kMaxWindowLog));
  }

  absl::StatusOr<size_t> Read(std::span<uint8_t> out) override {
    ZSTD_outBuffer output{out.data(), out.size(), 0};
    while (output.pos < output.size && !ended_) {
      if (input_.pos == input_.size) {
        ASSIGN_OR_RETURN(const std::span<const uint8_t> chunk, source_.NextChunk());
        input_ = {chunk.data(), chunk.size(), 0};
      }
      const size_t before = output.pos;
      const bool had_input = input_.pos < input_.size;
      const size_t result = ::ZSTD_decompressStream(context_, &output, &input_);
      if (::ZSTD_isError(result)) {
        if (::ZSTD_getErrorCode(result) == ZSTD_error_memory_allocation) {
          return absl::ResourceExhaustedError("no memory to unpack zstd data");
        }
        return absl::InvalidArgumentError(
            absl::StrCat("zstd data is corrupt: ", ::ZSTD_getErrorName(result)));
      }
      if (result == 0) {
        ended_ = true;
      } else if (!had_input && output.pos == before) {
        return absl::InvalidArgumentError("zstd data is truncated");
      }
    }
    return output.pos;
  }

 private:
  PayloadSource source_;
  ZSTD_DCtx* context_ = nullptr;
  ZSTD_inBuffer input_{nullptr, 0, 0};
  bool ended_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PayloadDecoder>> NewZstdDecoder(PayloadSource source) {
  auto decoder = std::make_unique<ZstdDecoder>(std::move(source));
  if (!decoder->Init()) return absl::ResourceExhaustedError("no memory to unpack zstd data");
  return decoder;
}

}  // namespace bothy::boot
