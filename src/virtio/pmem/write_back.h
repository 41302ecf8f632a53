// WriteBack: writes pages of a window to its disk, several runs at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "disk/disk.h"
#include "support/task.h"
#include "virtio/pmem/demand_pages.h"

namespace bothy::virtio {

struct WriteBackResult {
  absl::Status status;          // the first thing that went wrong
  std::vector<PageRun> failed;  // what may not be on the disk
};

// Writes `runs` of `window`, whose pages are all there, to the same offsets of `disk`; what lies
// past the disk's end isn't written. On the disk's loop; the pages may be stored to meanwhile.
Task<WriteBackResult> WriteBack(disk::Disk& disk, std::span<const uint8_t> window,
                                std::span<const PageRun> runs);

}  // namespace bothy::virtio
