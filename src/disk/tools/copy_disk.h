// CopyDisk: the contents of one disk onto another, with many requests in flight, and no more than
// there is: what reads as zero isn't written to a target that is new.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>

#include "disk/disk.h"
#include "support/task.h"

namespace bothy::disk::tools {

// Bytes of the target that are done, of all. On the loop's thread, many times a second.
using Progress = std::function<void(uint64_t done, uint64_t total)>;

struct CopyOptions {
  // What the target has before. kZero: it is new and reads as zero everywhere. kContents: it is
  // read, and only what differs is written.
  enum class Target : uint8_t { kZero, kContents };
  Target target = Target::kZero;
  Progress progress;
  std::stop_token stop;  // Cancelled soon after; the target has any part of it
};

// The target is as large as the source or larger: what it has more of becomes zero, and so does the
// end of a sector of its that the source's size cuts. Both stay open. Looking for holes in the
// source's file may block the thread for a moment.
Task<absl::Status> CopyDisk(Disk& from, Disk& to, const CopyOptions& options);

// Writes what `child` itself holds, and nothing that it inherits, to `parent`, the disk it differs
// from.
Task<absl::Status> CopyOwnContents(Disk& child, Disk& parent, const CopyOptions& options);

}  // namespace bothy::disk::tools
