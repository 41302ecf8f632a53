// DirectTransfers: reads and writes that a loop's own thread makes, one between two completions.
//
// Files are read and written through the page cache, and copying 4 KiB from or to it takes less
// than handing them to anybody: measured per request, 1.9 us of CPU for a read here against 2.5 in
// a ring at queue depth 1 (2.0 at 32), 2.5 for a write against 9.3 (5.4), since ext4 makes io_uring
// give buffered writes to a thread of its own.
//
// What would wait isn't for the loop's thread, though. A read says so itself (RWF_NOWAIT), and
// while reads miss the cache most aren't tried here. A write can't say so: when one has taken long,
// because the kernel makes those wait that dirty pages quicker than a disk takes them, the writes
// of the next moment go the engine's way; the longer, the more often it happens. And of several
// large reads all but one do, to be copied by other CPUs meanwhile (ext4 lets writes of one file
// only go one after the other).
//
// Loop thread only.
#pragma once

#include <cstdint>
#include <vector>

#include "support/file_call.h"

namespace bothy {

class DirectTransfers {
 public:
  static constexpr uint64_t kLargeBytes = 128 << 10;
  static constexpr uint32_t kMostReadsToSkip = 63;
  static constexpr int64_t kSlowWriteMs = 10;
  static constexpr int64_t kShortestPauseMs = 10;
  static constexpr int64_t kLongestPauseMs = 320;
  // Milliseconds that never go back.
  using Now = int64_t (*)();
  explicit DirectTransfers(Now now = &CoarseNow) : now_(now) {}

  // Keeps `call` for RunOne; false when it had better go the engine's way, which may set its
  // `elsewhere`.
  [[nodiscard]] bool Take(FileCall& call);
  [[nodiscard]] bool empty() const { return next_ == queue_.size(); }
  // Whether the first of them takes so long that all else should get its turn after it.
  [[nodiscard]] bool next_is_large() const;
  // Makes the first of them, and completes it. False, and `left` is it, when it would have waited.
  [[nodiscard]] bool RunOne(FileCall& left);

 private:
  // CLOCK_MONOTONIC_COARSE: good enough here, and next to free.
  static int64_t CoarseNow();
  [[nodiscard]] bool Read(const FileCall& call);
  void Write(const FileCall& call);

  const Now now_;
  std::vector<FileCall> queue_;
  size_t next_ = 0;             // of queue_
  uint32_t miss_streak_ = 0;    // grows with reads that would have waited, 0 after a hit
  uint32_t reads_to_skip_ = 0;  // that aren't tried here
  int64_t no_writes_until_ = 0;
  int64_t next_pause_ms_ = kShortestPauseMs;  // how long after the next slow write
};

}  // namespace bothy
