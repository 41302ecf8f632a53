// Which bytes are data: without reading what is a hole or has no block, so that a look at a disk of
// terabytes with nothing on it costs nothing.
//
// Looking for holes in a file may block the thread for a moment.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>

#include "disk/disk.h"
#include "disk/storage.h"
#include "support/task.h"

namespace bothy::disk {

// What is known of the bytes that follow an offset.
struct DataRun {
  bool is_zero = false;  // else they may be anything
  uint64_t length = 0;   // bytes, whole sectors of the disk
};
Task<absl::StatusOr<DataRun>> FindRun(Disk& disk, uint64_t offset);

struct SurveyOptions {
  // Called now and then with the bytes that are done, and all that there are.
  std::function<void(uint64_t done, uint64_t total)> progress = nullptr;
  std::stop_token stop = {};  // Cancelled soon after
};
// Whether everything from `begin` to the end reads as zero, including what a disk inherits.
Task<absl::StatusOr<bool>> ReadsAsZero(Disk& disk, uint64_t begin, SurveyOptions options);
Task<absl::StatusOr<bool>> ReadsAsZero(Storage& storage, uint64_t begin, SurveyOptions options);

// What a resize asks before it cuts off all from `size_bytes` on: FailedPrecondition when anything
// but zeros would be lost.
Task<absl::Status> RefuseToCutData(Disk& disk, uint64_t size_bytes, SurveyOptions options);
Task<absl::Status> RefuseToCutData(Storage& storage, uint64_t size_bytes, SurveyOptions options);
// What one is told that was stopped before its first change.
[[nodiscard]] absl::Status NothingChanged();

}  // namespace bothy::disk
