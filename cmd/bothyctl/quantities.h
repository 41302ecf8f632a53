// Amounts of memory and time as people type and read them.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "support/status.h"

namespace bothy::bothyctl {

// MiB from "512", "512M", "512MiB", "2G", "2GiB", "1T" (any case). Units are powers of 1024; "MB",
// which may mean either, is refused. InvalidArgument says what is wrong with the text.
absl::StatusOr<uint64_t> ParseMebibytes(std::string_view text);

// Bytes from "20G", "512M", "64K", "1048576B" (any case, also "20GiB") or "1048576": sizes of disks
// and their parts. A number alone below 512 is refused, as nothing is that small: it counts
// something else.
absl::StatusOr<uint64_t> ParseBytes(std::string_view text);

// "20 GiB", "512 B"; one decimal where the amount isn't whole in its unit: "1.5 KiB".
std::string FormatBytes(uint64_t bytes);

// "512 MiB"; one decimal where the amount isn't whole: "0.5 MiB".
std::string FormatMebibytes(uint64_t bytes);

// A positive time from "5", "5s", "250ms", "2m", "1h"; fractions are allowed: "0.5s".
absl::StatusOr<std::chrono::nanoseconds> ParseDuration(std::string_view text);

}  // namespace bothy::bothyctl
