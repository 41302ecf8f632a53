#include "scsi/disk_errors.h"

namespace bothy::scsi {

std::string_view OperationName(disk::Operation operation) {
  switch (operation) {
    case disk::Operation::kRead:
      return "read";
    case disk::Operation::kWrite:
      return "write";
    case disk::Operation::kFlush:
      return "flush";
    case disk::Operation::kDiscard:
      return "discard";
    case disk::Operation::kWriteZeroes:
      return "write zeroes";
  }
  return "operation";
}

Condition ConditionOf(disk::Operation operation, const absl::Status& status) {
  const bool reading = operation == disk::Operation::kRead;
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      // A read needs no space on the medium: what was short is the host's memory or descriptors.
      return reading ? kInternalTargetFailure : kSpaceAllocationFailed;
    case absl::StatusCode::kPermissionDenied:
      return reading ? kReadError : kWriteProtected;
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kUnknown:
      return kInternalTargetFailure;
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnavailable:
      return kCommandAborted;
    default:
      return reading ? kReadError : kWriteError;
  }
}

}  // namespace bothy::scsi
