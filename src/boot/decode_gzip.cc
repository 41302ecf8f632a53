// zlib's inflate reads straight into the caller's span; its own history is 32 KiB.
#define ZLIB_CONST
#include <zlib.h>

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "boot/payload_codecs.h"

namespace bothy::boot {
namespace {

class GzipDecoder final : public PayloadDecoder {
 public:
  explicit GzipDecoder(PayloadSource source) : source_(std::move(source)) {}
  ~GzipDecoder() override { ::inflateEnd(&stream_); }
  GzipDecoder(const GzipDecoder&) = delete;
  GzipDecoder& operator=(const GzipDecoder&) = delete;

  [[nodiscard]] bool Init() {
    constexpr int kGzipWrapper = 16;  // zlib.h, inflateInit2
    return ::inflateInit2(&stream_, MAX_WBITS + kGzipWrapper) == Z_OK;
  }

  absl::StatusOr<size_t> Read(std::span<uint8_t> out) override {
    size_t done = 0;
    while (done < out.size() && !ended_) {
      if (stream_.avail_in == 0) {
        ASSIGN_OR_RETURN(const std::span<const uint8_t> chunk, source_.NextChunk());
        if (chunk.empty()) return absl::InvalidArgumentError("gzip data is truncated");
        stream_.next_in = chunk.data();
        stream_.avail_in = static_cast<uInt>(chunk.size());
      }
      const size_t room = std::min<size_t>(out.size() - done, std::numeric_limits<uInt>::max());
      stream_.next_out = out.data() + done;
      stream_.avail_out = static_cast<uInt>(room);
      const int result = ::inflate(&stream_, Z_NO_FLUSH);
      done += room - stream_.avail_out;
      if (result == Z_STREAM_END) {
        ended_ = true;
      } else if (result == Z_MEM_ERROR) {
        return absl::ResourceExhaustedError("no memory to unpack gzip data");
      } else if (result != Z_OK) {
        return absl::InvalidArgumentError("gzip data is corrupt");
      }
    }
    return done;
  }

 private:
  PayloadSource source_;
  z_stream stream_{};
  bool ended_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PayloadDecoder>> NewGzipDecoder(PayloadSource source) {
  auto decoder = std::make_unique<GzipDecoder>(std::move(source));
  if (!decoder->Init()) return absl::ResourceExhaustedError("no memory to unpack gzip data");
  return decoder;
}

}  // namespace bothy::boot
