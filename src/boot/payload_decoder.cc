#include "boot/payload_decoder.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "boot/payload_codecs.h"

namespace bothy::boot {
namespace {

using namespace std::string_view_literals;

using Factory = absl::StatusOr<std::unique_ptr<PayloadDecoder>> (*)(PayloadSource);

struct Format {
  std::string_view magic;
  std::string_view name;
  Factory factory;  // null: known by name only
};

// The signatures that the kernel's own lib/decompress.c tells formats apart by.
constexpr std::array kFormats = {
    Format{"\x1f\x8b"sv, "gzip", NewGzipDecoder},
    Format{"\xfd\x37\x7a\x58\x5a\x00"sv, "xz", NewXzDecoder},
    Format{"\x28\xb5\x2f\xfd"sv, "zstd", NewZstdDecoder},
    Format{"\x02\x21\x4c\x18"sv, "lz4", NewLz4Decoder},
    Format{"\x7f\x45\x4c\x46"sv, "stored", NewStoredDecoder},
    Format{"\x42\x5a\x68"sv, "bzip2", nullptr},
    Format{"\x5d\x00\x00"sv, "lzma", nullptr},
    Format{"\x89\x4c\x5a"sv, "lzo", nullptr},
};

class StoredDecoder final : public PayloadDecoder {
 public:
  explicit StoredDecoder(PayloadSource source) : source_(std::move(source)) {}
  absl::StatusOr<size_t> Read(std::span<uint8_t> out) override {
    const size_t n = std::min<uint64_t>(out.size(), source_.left());
    RETURN_IF_ERROR(source_.Take(out.first(n)));
    return n;
  }
  [[nodiscard]] bool HasChecksum() const override { return false; }

 private:
  PayloadSource source_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PayloadDecoder>> NewStoredDecoder(PayloadSource source) {
  return std::make_unique<StoredDecoder>(std::move(source));
}

absl::StatusOr<std::unique_ptr<PayloadDecoder>> PayloadDecoder::Create(const BootFile& file,
                                                                       uint64_t offset,
                                                                       uint64_t length) {
  std::array<uint8_t, 8> magic{};
  RETURN_IF_ERROR(
      file.ReadAt(offset, std::span(magic).first(std::min<uint64_t>(magic.size(), length))));
  const std::string_view head(reinterpret_cast<const char*>(magic.data()), magic.size());
  for (const Format& format : kFormats) {
    if (!head.starts_with(format.magic)) continue;
    if (format.factory == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("packed with ", std::string(format.name),
                       ", which isn't supported; gzip, xz, zstd and lz4 are"));
    }
    return format.factory(PayloadSource(file, offset, length));
  }
  return absl::InvalidArgumentError("packed in an unknown format");
}

}  // namespace bothy::boot
