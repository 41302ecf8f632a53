// FileMappings: the parts of a window where image files are mapped.
//
// Threads: the loop's, but bytes() and count(), which are for any.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <vector>

#include "support/io_loop.h"
#include "support/status.h"
#include "support/task.h"
#include "virtio/pmem/demand_pages.h"

namespace bothy::virtio {

class FileMappings {
 public:
  // `window` is what they are mapped into; at most `max_mappings` of them, counting neighbours that
  // the kernel makes one as one.
  FileMappings(std::span<uint8_t> window, bool writable, uint32_t max_mappings)
      : window_(window), writable_(writable), max_mappings_(max_mappings) {}

  // Maps bytes of `fd` from `file_offset` on over `run`. False, and nothing has changed, when there
  // are too many mappings. The descriptor stays open while it is mapped.
  bool Map(const PageRun& run, int fd, uint64_t file_offset);
  // Check looks at `fd`, too, of which nothing need be mapped. False when it did already.
  bool Watch(int fd) { return watched_.insert(fd).second; }
  // `run`, one of Runs(), is something else now. What was stored to it is in the file, but need not
  // be durable yet; and the file has to keep it.
  void Forget(const PageRun& run);
  [[nodiscard]] bool Contains(uint64_t offset) const;
  [[nodiscard]] std::vector<PageRun> Runs() const;
  // The files that a flush has to sync: of which something is mapped, or was, and was forgotten
  // since the last call.
  [[nodiscard]] std::vector<int> TakeUnsynced();
  // The runs with bytes that their file has no longer.
  [[nodiscard]] std::vector<PageRun> TruncatedRuns() const;
  // Whether the files are still there and have what is or was mapped of them, also those of Watch.
  [[nodiscard]] absl::Status Check() const;

  [[nodiscard]] uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  [[nodiscard]] uint64_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  struct Mapped {
    uint64_t length = 0;
    int fd = -1;
    uint64_t file_offset = 0;
  };
  const std::span<uint8_t> window_;
  const bool writable_;
  const uint32_t max_mappings_;
  std::map<uint64_t, Mapped> runs_;  // by offset in the window
  std::set<int> watched_;
  std::map<int, uint64_t> forgotten_ends_;  // by descriptor: how far what was forgotten reached
  std::set<int> unsynced_;                  // of what was forgotten
  std::atomic<uint64_t> bytes_{0};
  std::atomic<uint64_t> count_{0};
};

// A run of a file's bytes.
struct FileRun {
  uint64_t begin = 0;
  uint64_t end = 0;
};
// The first run within [`begin`, `end`) of a file that has room of its own on the host, so that a
// store to it can't meet a full file system; {end, end} when there is none. Everything, where the
// host doesn't tell.
Task<FileRun> FindAllocated(IoLoop& loop, int fd, uint64_t begin, uint64_t end);

}  // namespace bothy::virtio
