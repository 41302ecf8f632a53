// liblzma keeps its own dictionary (kernels: 32 MiB) and copies from it to the caller's span; it
// undoes the x86 branch filter that kernels are packed with.
#include <lzma.h>

#include "boot/large_buffer.h"
#include "boot/payload_codecs.h"

namespace bothy::boot {
namespace {

// The dictionary and what the decoder needs beside it.
constexpr uint64_t kMemoryLimit = kMaxWindowBytes + (1 << 20);

constexpr lzma_allocator kAllocator = {
    .alloc = [](void*, size_t count, size_t bytes) -> void* {
      size_t total = 0;
      return __builtin_mul_overflow(count, bytes, &total) ? nullptr : AllocateForCodec(total);
    },
    .free = [](void*, void* address) { FreeForCodec(address); },
    .opaque = nullptr,
};

class XzDecoder final : public PayloadDecoder {
 public:
  explicit XzDecoder(PayloadSource source) : source_(std::move(source)) {}
  ~XzDecoder() override { ::lzma_end(&stream_); }
  XzDecoder(const XzDecoder&) = delete;
  XzDecoder& operator=(const XzDecoder&) = delete;

  [[nodiscard]] bool Init() {
    stream_.allocator = &kAllocator;
    return ::lzma_stream_decoder(&stream_, kMemoryLimit, /*flags=*/0) == LZMA_OK;
  }

  absl::StatusOr<size_t> Read(std::span<uint8_t> out) override {
    stream_.next_out = out.data();
    stream_.avail_out = out.size();
    while (stream_.avail_out > 0 && !ended_) {
      if (stream_.avail_in == 0) {
        ASSIGN_OR_RETURN(const std::span<const uint8_t> chunk, source_.NextChunk());
        if (chunk.empty()) return absl::InvalidArgumentError("xz data is truncated");
        stream_.next_in = chunk.data();
        stream_.avail_in = chunk.size();
      }
      switch (::lzma_code(&stream_, LZMA_RUN)) {
        case LZMA_OK:
          break;
        case LZMA_STREAM_END:
          ended_ = true;
          break;
        case LZMA_MEM_ERROR:
          return absl::ResourceExhaustedError("no memory to unpack xz data");
        case LZMA_MEMLIMIT_ERROR:
          return absl::InvalidArgumentError("xz data needs a dictionary of more than 128 MiB");
        case LZMA_OPTIONS_ERROR:
          return absl::InvalidArgumentError("xz data uses an option that isn't supported");
        default:
          return absl::InvalidArgumentError("xz data is corrupt");
      }
    }
    return out.size() - stream_.avail_out;
  }

 private:
  PayloadSource source_;
  lzma_stream stream_ = LZMA_STREAM_INIT;
  bool ended_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PayloadDecoder>> NewXzDecoder(PayloadSource source) {
  auto decoder = std::make_unique<XzDecoder>(std::move(source));
  if (!decoder->Init()) return absl::ResourceExhaustedError("no memory to unpack xz data");
  return decoder;
}

}  // namespace bothy::boot
