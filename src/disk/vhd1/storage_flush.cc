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
  }
  ended_.WakeAll();
  co_return status;
}

absl::Status StorageFlush::Answer(uint64_t told, absl::Status status) {
  if (status.ok() && failures_ > told) status = last_failure_;
  if (!status.ok()) told_ = failures_;
  return status;
}

}  // namespace bothy::disk::vhd1
