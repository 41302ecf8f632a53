// Replaying a log ([MS-VHDX] 2.3.3): into the image itself, or into an overlay of one that may not
// be changed.
#pragma once

#include "disk/storage.h"
#include "disk/vhdx/log_scan.h"
#include "support/task.h"

namespace bothy::disk::vhdx {

// Writes what the log of `source` says to `target`, which is the same storage or one over it, and
// extends it to what the log says. Nothing is written when the log, or what it wants written where,
// is damaged. Not flushed.
Task<absl::Status> ReplayLog(Storage& source, const LogPlace& place, Storage& target);

}  // namespace bothy::disk::vhdx
