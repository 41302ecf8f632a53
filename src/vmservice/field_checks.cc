#include "vmservice/field_checks.h"

#include <filesystem>

#include "absl/strings/str_cat.h"

namespace bothy::vmservice {

absl::Status Invalid(const std::string& path, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", problem));
}

absl::Status NotInThisBuild(const std::string& path, const std::string& what) {
  return absl::UnimplementedError(absl::StrCat(path, ": this build doesn't support ", what));
}

absl::Status CheckRange(const std::string& path, uint64_t value, uint64_t low, uint64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return Invalid(path, absl::StrCat(value, " is out of range ", low, "..", high));
}

absl::Status CheckPath(const std::string& path, const std::string& value) {
  if (value.empty()) return Invalid(path, "is empty");
  if (value.find('\0') != std::string::npos) return Invalid(path, "contains a NUL byte");
  return absl::OkStatus();
}

std::string PlainPath(const std::string& path) {
  std::filesystem::path plain;
  for (const std::filesystem::path& part : std::filesystem::path(path)) {
    if (!part.empty() && part != ".") plain /= part;
  }
  return plain.empty() ? path : plain.string();
}

}  // namespace bothy::vmservice
