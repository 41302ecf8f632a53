// StorageFlush: the flushes of an image's file, and which of their errors the guest hasn't heard
// of.
//
// The host tells of a write that it couldn't carry out once, to one flush, and takes it for done
// afterwards (Linux: fsync). That flush may be one the guest knows nothing of: a commit that began
// by itself, a footer that moved. So whatever flush fails, the guest's next one has to fail, and
// all of the guest's that were under way: each may be the one that stands for what is lost. And
// they go one at a time: of two that overlap, the one that succeeds could end before the one that
// was told the error.
#pragma once

#include <cstdint>

#include "disk/storage.h"
#include "disk/vhd1/wait_list.h"
#include "support/status.h"
#include "support/task.h"

namespace bothy::disk::vhd1 {

class StorageFlush {
 public:
  explicit StorageFlush(Storage& storage) : storage_(storage) {}

  // Flushes the storage, after the flush that is under way.
  Task<absl::Status> Run();

  // Flushes that have failed so far. Who flushes for the guest remembers it before, and answers
  // with Answer: `status`, unless there is an error the guest has to hear of.
  [[nodiscard]] uint64_t failures() const { return failures_; }
  [[nodiscard]] absl::Status Answer(uint64_t failures_before, absl::Status status);

 private:
  Storage& storage_;
  bool running_ = false;
  WaitList ended_;
  uint64_t failures_ = 0;
  absl::Status last_failure_;
  bool untold_ = false;  // no flush of the guest has failed since
};

}  // namespace bothy::disk::vhd1
