#include "cmd/bothyctl/quantities.h"

#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace bothy::bothyctl {
namespace {

struct Split {
  std::string_view number;
  std::string unit;  // lower case
};

Split SplitUnit(std::string_view text) {
  size_t end = 0;
  while (end < text.size() &&
         (absl::ascii_isdigit(static_cast<unsigned char>(text[end])) || text[end] == '.')) {
    ++end;
  }
  return {text.substr(0, end), absl::AsciiStrToLower(std::string(text.substr(end)))};
}

absl::Status NotMemory(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("\"", std::string(text), "\" is not an amount of ",
                                                 "memory", std::string(why),
                                                 ": write 512, 512M or 2G"));
}

absl::Status NotTime(std::string_view text) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", std::string(text), "\" is not a time: write 5, 5s, 250ms or 2m"));
}

}  // namespace

absl::StatusOr<uint64_t> ParseMebibytes(std::string_view text) {
  const auto [number, unit] = SplitUnit(text);
  uint64_t amount = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), amount);
  if (error == std::errc::result_out_of_range) return NotMemory(text, " that fits 64 bits");
  if (error != std::errc() || end != number.data() + number.size()) return NotMemory(text, "");
  uint64_t factor = 0;
  if (unit.empty() || unit == "m" || unit == "mib") factor = 1;
  if (unit == "g" || unit == "gib") factor = 1024;
  if (unit == "t" || unit == "tib") factor = 1 << 20;
  if (factor == 0) return NotMemory(text, "");
  if (amount > std::numeric_limits<uint64_t>::max() / factor) {
    return NotMemory(text, " that fits 64 bits");
  }
  return amount * factor;
}

absl::StatusOr<uint64_t> ParseBytes(std::string_view text) {
  const auto [number, unit] = SplitUnit(text);
  uint64_t amount = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), amount);
  constexpr std::string_view kUnits = "bkmgt";
  constexpr uint64_t kSmallest = 512;
  const size_t power = !unit.empty() ? kUnits.find(unit[0]) : amount < kSmallest ? kUnits.npos : 0;
  const bool known = power != std::string_view::npos &&
                     (unit.size() <= 1 || (power != 0 && unit.substr(1) == "ib"));
  if (error != std::errc() || end != number.data() + number.size() || !known) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", std::string(text), "\" is not a size: write 20G, 512M, 64K or 1048576B"));
  }
  const uint64_t factor = uint64_t{1} << (10 * power);
  if (amount > std::numeric_limits<uint64_t>::max() / factor) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", std::string(text), "\" is not a size that fits 64 bits"));
  }
  return amount * factor;
}

std::string FormatBytes(uint64_t bytes) {
  constexpr std::array<const char*, 5> kNames = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t power = 0;
  while (power + 1 < kNames.size() && bytes >> (10 * (power + 1)) != 0) ++power;
  const uint64_t unit = uint64_t{1} << (10 * power);
  if (bytes % unit == 0) return absl::StrCat(bytes / unit, " ", kNames[power]);
  return absl::StrFormat("%.1f %s", static_cast<double>(bytes) / static_cast<double>(unit),
                         kNames[power]);
}

std::string FormatMebibytes(uint64_t bytes) {
  constexpr uint64_t kMebibyte = uint64_t{1} << 20;
  if (bytes % kMebibyte == 0) return absl::StrCat(bytes / kMebibyte, " MiB");
  return absl::StrFormat("%.1f MiB", static_cast<double>(bytes) / static_cast<double>(kMebibyte));
}

absl::StatusOr<std::chrono::nanoseconds> ParseDuration(std::string_view text) {
  const auto [number, unit] = SplitUnit(text);
  double amount = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), amount);
  if (error != std::errc() || end != number.data() + number.size()) return NotTime(text);
  double seconds = 0;
  if (unit == "ms") seconds = 1e-3;
  if (unit.empty() || unit == "s") seconds = 1;
  if (unit == "m") seconds = 60;
  if (unit == "h") seconds = 3600;
  const double nanoseconds = amount * seconds * 1e9;
  // What is longer than a century is a slip, and wouldn't fit the wire's 64 bits.
  if (seconds == 0 || !(nanoseconds >= 1) || nanoseconds > 3.2e18) return NotTime(text);
  return std::chrono::nanoseconds(std::llround(nanoseconds));
}

}  // namespace bothy::bothyctl
