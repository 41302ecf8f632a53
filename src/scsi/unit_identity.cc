#include "scsi/unit_identity.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace bothy::scsi {
namespace {

// FNV-1a with the finalizer of MurmurHash3, so that every bit depends on every character. Names
// that guests have written down depend on it: it can't change.
uint64_t Hash(std::string_view text, uint64_t seed) {
  uint64_t hash = 0xCBF2'9CE4'8422'2325 ^ seed;
  for (const char c : text) {
    hash ^= static_cast<uint8_t>(c);
    hash *= 0x100'0000'01B3;
  }
  hash ^= hash >> 33;
  hash *= 0xFF51'AFD7'ED55'8CCD;
  hash ^= hash >> 33;
  hash *= 0xC4CE'B9FE'1A85'EC53;
  hash ^= hash >> 33;
  return hash;
}

}  // namespace

std::string DefaultSerial(const disk::Disk& disk) {
  const std::optional<Guid> identity = disk.identity();
  if (!identity.has_value() || identity->is_zero()) return SerialOfPath(disk.path());
  std::string text = identity->ToString();
  text.erase(std::remove(text.begin(), text.end(), '-'), text.end());
  return text;
}

std::string SerialOfPath(std::string_view path) {
  return absl::StrCat(absl::Hex(Hash(path, 1), absl::kZeroPad16),
                      absl::Hex(Hash(path, 2), absl::kZeroPad16));
}

absl::Status CheckInquiryText(std::string_view text, size_t max_bytes) {
  if (text.empty() || text.size() > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(text.size(), " characters; must be 1 to ", max_bytes));
  }
  const bool printable =
      std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c <= 0x7E; });
  if (!printable || text.front() == ' ' || text.back() == ' ') {
    return absl::InvalidArgumentError(
        "must be printable ASCII characters without a blank at either end");
  }
  return absl::OkStatus();
}

uint64_t LocallyAssignedName(std::string_view serial) {
  constexpr uint64_t kLocallyAssigned = 3;
  return kLocallyAssigned << 60 | Hash(serial, 3) >> 4;
}

}  // namespace bothy::scsi
