// What a differencing image that grew mustn't show: bytes of its parent behind the end that it had,
// those too that a shrink had cut off. New space reads as zero, so sectors of zeros are put there,
// as far as the parent reaches.
#pragma once

#include <cstdint>

#include "disk/storage.h"
#include "disk/vhd1/examine.h"
#include "support/status.h"
#include "support/task.h"

namespace bothy::disk::vhd1 {

// Bytes of the disk.
struct HiddenRange {
  uint64_t begin = 0;  // the end that the disk had
  uint64_t end = 0;
};

// ResourceExhausted when an image whose data end at `data_end` would get larger than one can be.
absl::Status CheckRoomToHide(const Image& image, const HiddenRange& range, uint64_t data_end);

// Says of the sectors of `block` behind its first `kept` bytes that they are its own, which are
// zero, durably so.
Task<absl::Status> HideTail(Storage& storage, const Image& image, const FoundBlock& block,
                            uint64_t kept);

// Gives blocks that aren't there yet to all of `range`, behind found.data_end, which follows them.
// Before the size tells otherwise nothing that the disk shows changes; durable on return. `grown`
// is the image with its size to be; its table has entries enough, unused ones past the end, and
// HideTail was called for the last block of before, if that is there. The footer stays what it is.
Task<absl::Status> HideParent(Storage& storage, const Image& grown, const HiddenRange& range,
                              const Progress& progress, Examination& found);

}  // namespace bothy::disk::vhd1
