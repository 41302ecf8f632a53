// UTF-16LE, the encoding of strings in VHD and VHDX files, to and from UTF-8.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/status.h"

namespace bothy::disk {

// InvalidArgument for an odd length, a lone surrogate or a NUL.
absl::StatusOr<std::string> Utf16ToUtf8(std::span<const uint8_t> bytes);
// InvalidArgument for what isn't UTF-8, and for a NUL.
absl::StatusOr<std::vector<uint8_t>> Utf8ToUtf16(std::string_view text);

}  // namespace bothy::disk
