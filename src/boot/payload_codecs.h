// One factory a compression format; private to PayloadDecoder::Create.
#pragma once

#include <memory>

#include "boot/payload_decoder.h"
#include "boot/payload_source.h"

namespace bothy::boot {

absl::StatusOr<std::unique_ptr<PayloadDecoder>> NewStoredDecoder(PayloadSource source);
absl::StatusOr<std::unique_ptr<PayloadDecoder>> NewGzipDecoder(PayloadSource source);
absl::StatusOr<std::unique_ptr<PayloadDecoder>> NewXzDecoder(PayloadSource source);
absl::StatusOr<std::unique_ptr<PayloadDecoder>> NewZstdDecoder(PayloadSource source);
absl::StatusOr<std::unique_ptr<PayloadDecoder>> NewLz4Decoder(PayloadSource source);

}  // namespace bothy::boot
