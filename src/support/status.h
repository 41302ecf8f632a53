// Status codes and the macros that pass them up.
//
// Every fallible function of bothy returns absl::Status or absl::StatusOr<T>; nothing throws across
// a library boundary. The codes are google.rpc's, which are also ttrpc's; contract.md's table says
// which one means what. Messages name the field or object first: "config.memory_config.memory_mb:
// must be at least 1".
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bothy {

// The status for a failed system call: `what` is the operation and its object ("open /dev/kvm").
// ENOENT → NotFound, EACCES/EPERM → PermissionDenied, ENOMEM/ENOSPC/EFBIG/EMFILE/ENFILE/EAGAIN →
// ResourceExhausted, EEXIST → AlreadyExists, EINVAL/ENAMETOOLONG/... → InvalidArgument, anything
// else → Internal.
[[nodiscard]] absl::Status ErrnoStatus(int error, std::string_view what);

// The same status with "`prefix`: " before its message. OK stays OK.
[[nodiscard]] absl::Status WithContext(const absl::Status& status, std::string_view prefix);

}  // namespace bothy

#define BOTHY_STATUS_CONCAT_INNER(a, b) a##b
#define BOTHY_STATUS_CONCAT(a, b) BOTHY_STATUS_CONCAT_INNER(a, b)

// Returns from the enclosing function when `expr` (an absl::Status) isn't OK.
#define RETURN_IF_ERROR(expr)                                     \
  do {                                                            \
    if (absl::Status bothy_status = (expr); !bothy_status.ok()) { \
      return bothy_status;                                        \
    }                                                             \
  } while (false)

// `lhs = expr` when the absl::StatusOr `expr` is OK, else returns its status. Declares a variable,
// so it can't stand as the lone statement of an `if`.
#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_IMPL(BOTHY_STATUS_CONCAT(bothy_statusor_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL(statusor, lhs, expr) \
  auto statusor = (expr);                          \
  if (!statusor.ok()) return statusor.status();    \
  lhs = std::move(statusor).value()
