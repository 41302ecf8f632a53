// SpaceAllocator: which space of an image's file is free.
//
// Nobody knows all of it without reading the whole BAT, so that it is what lies past the end of the
// file as it was when it was opened, and what this session freed. New space reads as zero. The file
// is grown ahead, in steps, and cut to what is used when it is closed.
//
// Space that a block gave up is used again when nothing can refer to it any more: once the commit
// that dropped it is durable, once all I/O that was under way is over, and once it was zeroed (and
// given back to the host meanwhile).
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "disk/storage.h"
#include "disk/vhdx/io_epochs.h"
#include "disk/vhdx/metadata_store.h"
#include "disk/wait_list.h"
#include "support/task.h"

namespace bothy::disk::vhdx {

class SpaceAllocator {
 public:
  // `first_free`: where all structures of the file, known and unknown, end. All outlive it.
  SpaceAllocator(Storage& storage, MetadataStore& tables, IoEpochs& epochs, uint32_t block_bytes,
                 uint64_t first_free);
  // Nothing is under way.
  ~SpaceAllocator();

  struct Space {
    uint64_t offset = 0;
    // What says so must not be durable before all that was written until now is.
    bool used_before = false;
  };
  // Space of a block, zeroed; nothing when the file has to be grown first.
  [[nodiscard]] std::optional<Space> TryTakeBlock();
  // The same of any size, a multiple of 1 MiB.
  [[nodiscard]] std::optional<Space> TryTakeNew(uint64_t bytes);
  // Grows the file so that there is room for `bytes`, unless others take it before.
  Task<absl::Status> Grow(uint64_t bytes);

  // A block's space, which no table in memory refers to any more; that is durable with the commit
  // `generation`.
  void Free(uint64_t offset, uint64_t generation);
  // Something that freed space waits for may have happened.
  void Poll();
  [[nodiscard]] bool waiting() const { return !waiting_.empty(); }

  // Past which there is nothing in the file.
  [[nodiscard]] uint64_t end() const { return end_; }
  [[nodiscard]] uint64_t file_bytes() const { return file_bytes_; }
  // Returns when no freed space is being zeroed.
  Task<absl::Status> WaitUntilIdle();
  // Cuts the file to what is used, also of blocks at its end that were given up. Nothing is under
  // way, nor in the log.
  Task<absl::Status> Cut();

 private:
  struct Freed {
    uint64_t offset;
    uint64_t generation;
    uint64_t epoch;
  };
  Task<absl::Status> Zero(uint64_t offset);

  Storage& storage_;
  MetadataStore& tables_;
  IoEpochs& epochs_;
  const uint32_t block_bytes_;
  uint64_t end_;
  uint64_t file_bytes_;
  bool growing_ = false;
  bool grown_ = false;
  WaitList grown_waiters_;
  std::vector<uint64_t> free_;  // zeroed blocks
  std::deque<Freed> waiting_;   // in the order they were freed
  uint32_t zeroing_ = 0;
  WaitList zeroed_;
};

}  // namespace bothy::disk::vhdx
