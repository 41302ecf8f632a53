#include "disk/damage.h"

#include <optional>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace bothy::disk {
namespace {

// What is attached under it reads "OFFSET FIELD\nWHAT".
constexpr const char* kLocation = "bothy/image-location";

absl::Status Located(absl::StatusCode code, uint64_t offset, std::string_view field,
                     std::string_view what) {
  absl::Status status(
      code, absl::StrCat("offset ", offset, ": ", std::string(field), ": ", std::string(what)));
  status.SetPayload(kLocation, absl::Cord(absl::StrCat(offset, " ", std::string(field), "\n",
                                                       std::string(what))));
  return status;
}

}  // namespace

absl::Status Damaged(uint64_t offset, std::string_view field, std::string_view what) {
  return Located(absl::StatusCode::kDataLoss, offset, field, what);
}

absl::Status Unsupported(uint64_t offset, std::string_view field, std::string_view what) {
  return Located(absl::StatusCode::kInvalidArgument, offset, field, what);
}

Problem ToProblem(const absl::Status& status, Severity severity) {
  Problem problem;
  problem.severity = severity;
  problem.message = std::string(status.message());
  const auto payload = status.GetPayload(kLocation);
  if (!payload.has_value()) return problem;
  const std::string text(*payload);
  const size_t space = text.find(' ');
  const size_t line = text.find('\n');
  if (space == std::string::npos || line == std::string::npos || space > line) return problem;
  if (!absl::SimpleAtoi(text.substr(0, space), &problem.offset)) return problem;
  problem.field = text.substr(space + 1, line - space - 1);
  problem.message = text.substr(line + 1);
  return problem;
}

bool IsAboutContents(const absl::Status& status) {
  return status.GetPayload(kLocation).has_value();
}

}  // namespace bothy::disk
