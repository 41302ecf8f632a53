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

  // When a flush of the guest's begins: the failures that others of its have told of.
  [[nodiscard]] uint64_t failures_told() const { return told_; }
  // When it ends with `status`: what it answers. The last failure, when there was one that the
  // guest hadn't been told of when it began, else `status`.
  [[nodiscard]] absl::Status Answer(uint64_t told, absl::Status status);

 private:
  Storage& storage_;
  bool running_ = false;
  WaitList ended_;
  uint64_t failures_ = 0;
  uint64_t told_ = 0;  // of them
  absl::Status last_failure_;
};

}  // namespace bothy::disk::vhd1
