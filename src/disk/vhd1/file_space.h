// FileSpace: which bytes of a dynamic image's file are free for blocks, and where its footer is.
//
// Behind the last block there may be slack, room that reads as zero, so that not every new block
// has to move the footer. The footer at the new end is durable before a block may overwrite the
// old one.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "disk/storage.h"
#include "disk/vhd1/block_table.h"
#include "disk/vhd1/image.h"
#include "disk/vhd1/in_flight.h"
#include "disk/wait_list.h"
#include "support/status.h"
#include "support/task.h"

namespace bothy::disk::vhd1 {

class FileSpace {
 public:
  // All outlive it.
  FileSpace(Storage& storage, const Image& image, BlockTable& table, const InFlightList& in_flight);

  // A block's room, as a location of the table: zero bytes for its bitmap and its data. kUnused
  // when there is none before Grow.
  uint32_t Take();
  // Makes room for at least one more block, for all that wait for it. ResourceExhausted when the
  // host is full, DataLoss when the table has entries that can't be true.
  Task<absl::Status> Grow();

  // The block at `location` isn't used any more. Its room is free once a commit has made that
  // durable and the requests under way now have ended.
  void Free(uint32_t location);
  void BeginCommit();
  void EndCommit(bool durable);
  // Gives up to `most` free blocks' room back to the host and makes it available.
  Task<absl::Status> Reclaim(size_t most);

  // Gives the slack back. After everything is committed and nothing is in flight.
  Task<absl::Status> Trim();

 private:
  struct Freed {
    uint32_t location = 0;
    uint64_t number = 0;  // the first request that can't know it
  };

  Task<absl::Status> Scan();
  void FindHoles(std::vector<uint32_t>& locations, uint64_t end);
  Task<absl::Status> TakeLeftoverSlack();
  Task<absl::Status> MoveFooter(uint64_t slack_end);
  Task<absl::Status> GrowOnce();

  Storage& storage_;
  const Image& image_;
  BlockTable& table_;
  const InFlightList& in_flight_;
  const uint64_t span_;  // bytes of a block with its bitmap
  uint64_t footer_offset_;
  // Set by Scan: where the last block ends, and up to where zeros follow it.
  bool scanned_ = false;
  uint64_t data_end_ = 0;
  uint64_t zero_end_ = 0;

  std::vector<uint32_t> ready_;
  std::vector<Freed> freed_, committing_;
  std::deque<Freed> reclaimable_;
  bool reclaiming_ = false;
  bool growing_ = false;
  absl::Status grow_status_;
  WaitList grown_;
};

}  // namespace bothy::disk::vhd1
