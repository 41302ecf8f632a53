// DemandPages: the pages of a window that are filled from a disk when they are first touched, and
// whose stores are tracked, so that they can be written back.
//
// Knows where contents are to be put, not where they come from. Pages come in chunks, whole ones
// (the last may be short), so that a fault costs one read of the disk for several pages; stores are
// tracked by page. Bookkeeping grows with the chunks that were touched.
//
// No store is ever missed: a page is writable only while it counts as dirty. What decides of a
// page (its state and the operation on it that the state stands for) happens under one mutex.
//
// Threads: the fault thread of its own; everything else on the loop's thread, but stats().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "support/status.h"
#include "virtio/pmem/user_faults.h"

namespace bothy::virtio {

inline constexpr uint64_t kPmemPageBytes = 4096;
inline constexpr uint64_t kPmemChunkPages = 16;
inline constexpr uint64_t kPmemChunkBytes = kPmemChunkPages * kPmemPageBytes;

// Whole pages of a window.
struct PageRun {
  uint64_t offset = 0;
  uint64_t length = 0;
  bool operator==(const PageRun&) const = default;
};

class DemandPages final : private UserFaults::Handler {
 public:
  struct Options {
    std::span<uint8_t> range;  // whole pages, from the beginning of a chunk
    bool track_stores = true;  // false: nobody can store
    std::string thread_name;
    // Chunk number `chunk` was touched: one of the Finish functions must be called, on the loop's
    // thread. Called on the fault thread, must not block.
    std::function<void(uint64_t chunk)> fetch;
  };
  // Of no page yet. FailedPrecondition as UserFaults says.
  static absl::StatusOr<std::unique_ptr<DemandPages>> Create(Options options);
  // After Retire.
  ~DemandPages() override;

  // From now on these pages are filled on demand, whatever was mapped there before.
  absl::Status Adopt(const PageRun& run);

  // The ends of a fetch. Contents as long as the chunk; `lost` has a bit for each page whose
  // contents aren't the disk's, and which are therefore never written back. ResourceExhausted: the
  // host has no memory left, to be tried again.
  absl::Status FinishWith(uint64_t chunk, std::span<const uint8_t> contents, uint16_t lost);
  absl::Status FinishZero(uint64_t chunk);
  // The chunk isn't one of demand any more: what touched it tries again.
  void FinishElsewhere(uint64_t chunk);
  // `chunk` and the chunks behind it that nobody touched, up to the offset `end` (the end of a
  // chunk), are given up to `map`, which maps something over them that reads the same; if it says
  // false nothing has changed and another Finish is due.
  bool FinishMapped(uint64_t chunk, uint64_t end, const std::function<bool(const PageRun&)>& map);

  // The pages that were stored to since they were filled or last taken, in order, none longer than
  // kLongestRun. From now on they count as clean; stores from now on count anew. What was taken
  // and couldn't be written is given back by MarkDirty. With an error some pages may be taken, too.
  static constexpr uint64_t kLongestRun = 1 << 20;
  absl::Status TakeDirty(std::vector<PageRun>& runs);
  void MarkDirty(const PageRun& run);
  // Gives `run`, whole chunks, to `map` if all of them are there and clean: it maps something over
  // them that reads the same. False when they aren't, or it couldn't. Not while pages that were
  // taken are being written.
  bool Replace(const PageRun& run, const std::function<bool(const PageRun&)>& map);

  // Lets go of all pages: `replace` maps other memory over all of them, then who waits goes on.
  void Retire(const std::function<void()>& replace);

  struct Stats {
    uint64_t populated_pages = 0;
    uint64_t dirty_pages = 0;
    uint64_t fetches = 0;
    uint64_t store_faults = 0;
  };
  // Any thread.
  [[nodiscard]] Stats stats() const;
  // Bytes of the chunk: fewer at the end of the range.
  [[nodiscard]] uint64_t ChunkBytes(uint64_t chunk) const;

 private:
  struct Chunk {
    uint16_t dirty = 0;   // pages that may have been stored to, and may be stored to
    uint16_t lost = 0;    // pages whose contents aren't the disk's
    uint16_t wanted = 0;  // fetching: pages that a store waits for
    bool fetching = true;
    bool listed = false;  // in dirty_chunks_
  };
  explicit DemandPages(Options options) : options_(std::move(options)) {}

  // UserFaults::Handler.
  void OnMissing(uint64_t offset, bool store) override;
  void OnProtected(uint64_t offset) override;

  // All of these with mutex_ held.
  absl::Status Populated(uint64_t number, Chunk& chunk);
  void AddDirty(uint64_t number, Chunk& chunk, uint16_t pages);
  absl::Status Protect(uint64_t number, uint16_t pages);
  [[nodiscard]] uint16_t PageBits(uint64_t chunk) const;

  const Options options_;
  std::unique_ptr<UserFaults> faults_;

  mutable std::mutex mutex_;
  absl::btree_map<uint64_t, Chunk> chunks_;  // guarded by mutex_; that were touched, by number
  std::vector<uint64_t> dirty_chunks_;       // guarded by mutex_; numbers, unordered
  bool retired_ = false;                     // guarded by mutex_
  Stats stats_;                              // guarded by mutex_
};

}  // namespace bothy::virtio
