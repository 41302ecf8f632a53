#include "disk/vhd1/storage_flush.h"

#include <utility>

namespace bothy::disk::vhd1 {

Task<absl::Status> StorageFlush::Run() {
  while (running_) co_await ended_.Wait();
  running_ = true;
  absl::Status status = co_await Flush(storage_);
  running_ = false;
  if (!status.ok()) {
    ++failures_;
    last_failure_ = status;
    untold_ = true;
  }
  ended_.WakeAll();
  co_return status;
}

absl::Status StorageFlush::Answer(uint64_t failures_before, absl::Status status) {
  if (status.ok() && (untold_ || failures_ != failures_before)) status = last_failure_;
  untold_ = false;
  return status;
}

}  // namespace bothy::disk::vhd1
