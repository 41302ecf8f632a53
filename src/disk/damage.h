// Statuses that say where in an image something is wrong, and their way into a CheckReport.
#pragma once

#include <cstdint>
#include <string_view>

#include "disk/check_report.h"
#include "support/status.h"

namespace bothy::disk {

// DataLoss "offset N: FIELD: what". `offset` is in the file, in bytes.
[[nodiscard]] absl::Status Damaged(uint64_t offset, std::string_view field, std::string_view what);
// InvalidArgument in the same form: legal, but not supported.
[[nodiscard]] absl::Status Unsupported(uint64_t offset, std::string_view field,
                                       std::string_view what);

// The problem that such a status tells of; any other status becomes one of offset 0.
[[nodiscard]] Problem ToProblem(const absl::Status& status, Severity severity = Severity::kError);
// Whether `status` is about the contents of the image rather than about reading them.
[[nodiscard]] bool IsAboutContents(const absl::Status& status);

}  // namespace bothy::disk
