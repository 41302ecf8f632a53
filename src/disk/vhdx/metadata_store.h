// MetadataStore: the tables of an image (BAT, sector bitmaps) in memory, in pages of 4 KiB, and
// their way into the file: many changes together, through the log.
//
// Memory is the truth: a change counts from MarkDirty on, and is durable after a Commit. Pages are
// read when they are first needed; those that are as in the file are forgotten when there are too
// many.
//
// A Commit copies all dirty pages, writes the copies as one log entry, flushes, wakes those who
// waited, and then writes the copies to their places. Whatever dirties pages meanwhile goes into
// the next one, so that any number of changes and flushes in flight share a log entry. What a
// change needs to be durable before itself (the data that a sector bitmap says are there, zeros in
// space that is used again) is told by MarkDirty's Order: then there is a flush before the entry.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "disk/storage.h"
#include "disk/vhdx/format.h"
#include "disk/vhdx/log_writer.h"
#include "disk/wait_list.h"
#include "support/endian.h"
#include "support/task.h"

namespace bothy::disk::vhdx {

class MetadataStore {
 public:
  struct Page {
    [[nodiscard]] uint64_t Load64(uint32_t slot) const {
      return LoadLe<uint64_t>(bytes.data() + 8 * size_t{slot});
    }
    void Store64(uint32_t slot, uint64_t value) { StoreLe(bytes.data() + 8 * size_t{slot}, value); }
    // Whether it differs from what is durably in its place, or could.
    [[nodiscard]] bool held() const { return dirty || committing || unsettled; }

    uint64_t offset = 0;  // in the file
    uint32_t pins = 0;
    bool loaded = false;
    bool dirty = false;            // to be logged
    bool committing = false;       // a copy is on its way into the log or to its place
    bool unsettled = false;        // written to its place since the last flush
    uint64_t unsettled_entry = 0;  // as part of this log entry
    bool used = false;             // since the last sweep for pages to forget
    alignas(16) std::array<uint8_t, kPageBytes> bytes;
  };
  // A page that stays in memory meanwhile.
  class PageRef {
   public:
    PageRef() = default;
    explicit PageRef(Page* page) : page_(page) { ++page_->pins; }
    PageRef(PageRef&& other) noexcept : page_(std::exchange(other.page_, nullptr)) {}
    PageRef& operator=(PageRef&& other) noexcept {
      std::swap(page_, other.page_);
      return *this;
    }
    PageRef(const PageRef&) = delete;
    PageRef& operator=(const PageRef&) = delete;
    ~PageRef() {
      if (page_ != nullptr) --page_->pins;
    }
    Page& operator*() const { return *page_; }
    Page* operator->() const { return page_; }

   private:
    Page* page_ = nullptr;
  };

  // `storage` and `headers` outlive it. `cache_bytes` bounds the pages that are as in the file.
  MetadataStore(Storage& storage, HeaderStore& headers, uint32_t cache_bytes);
  // Nothing is under way.
  ~MetadataStore();
  MetadataStore(const MetadataStore&) = delete;
  MetadataStore& operator=(const MetadataStore&) = delete;

  // The page at `offset`, a multiple of kPageBytes, when it is in memory; else null. Good until the
  // next co_await.
  [[nodiscard]] Page* Find(uint64_t offset) {
    const auto found = pages_.find(offset / kPageBytes);
    if (found == pages_.end() || !found->second->loaded) return nullptr;
    found->second->used = true;
    return found->second.get();
  }
  Task<absl::StatusOr<PageRef>> Load(uint64_t offset);

  // Room for `pages` pages to become dirty: what is changed together must fit into one log entry.
  // Without it Reserve waits for commits, and fails when they do. Nobody waits for room while
  // holding some, so that there always comes more.
  [[nodiscard]] bool TryReserve(uint32_t pages) {
    if (held_ + reserved_ + pages > max_held_) return false;
    reserved_ += pages;
    return true;
  }
  Task<absl::Status> Reserve(uint32_t pages);
  void Release(uint32_t pages);
  [[nodiscard]] uint32_t max_reservation() const { return max_held_ / 2; }

  enum class Order : uint8_t { kAny, kAfterData };
  // The page was changed. Within a reservation, unless it was dirty already; not in a file that is
  // read-only.
  void MarkDirty(Page& page, Order order);

  [[nodiscard]] bool dirty() const { return !dirty_.empty(); }
  // The commit that what is dirty now will be part of; in durable_generation() once it is durable.
  [[nodiscard]] uint64_t next_generation() const { return generation_ + 1; }
  [[nodiscard]] uint64_t durable_generation() const { return durable_generation_; }
  // Whether a flush of the storage alone makes everything durable that was done before.
  [[nodiscard]] bool needs_commit() const { return !dirty_.empty() || appending_; }
  // Makes durable what is dirty, and everything that completed in the storage before.
  Task<absl::Status> Commit();
  // Begins one in the background.
  void StartCommit();
  // Called after each commit that became durable.
  void set_on_durable(std::function<void()> on_durable) { on_durable_ = std::move(on_durable); }

  // Every flush of the storage, by whomever, is told here: what was in its place before is settled
  // by it.
  struct FlushTicket {
    uint64_t entry = 0;
    uint64_t file_bytes = 0;
  };
  [[nodiscard]] FlushTicket BeginFlush() const;
  void EndFlush(const FlushTicket& ticket, const absl::Status& status);
  Task<absl::Status> FlushStorage();

  // All structures of the file end before it; told before a page that says so is marked.
  void set_structures_end(uint64_t bytes) { structures_end_ = bytes; }

  // Returns when no commit is under way.
  Task<absl::Status> WaitUntilIdle();
  // Everything to its place and the log empty. Nothing else may be under way.
  Task<absl::Status> Finish();

  [[nodiscard]] size_t resident_bytes() const { return pages_.size() * sizeof(Page); }

 private:
  struct Snapshot {
    std::vector<PageRef> pages;
    std::vector<uint8_t> bytes;  // their contents, one after the other
    bool after_data = false;
    uint64_t generation = 0;
  };
  Task<absl::Status> ReadPage(Page& page);
  void MakeRoomForPage();
  // Starts Run unless it runs.
  void Wake();
  // Commits and flushes while somebody wants it.
  Task<absl::Status> Run();
  Task<absl::Status> CommitOnce();
  Snapshot TakeSnapshot();
  Task<absl::Status> AppendSnapshot(const Snapshot& snapshot);
  Task<absl::Status> WriteInPlace(const Snapshot& snapshot);
  void MakeDirty(Page& page);
  void ReleaseIfSettled(Page& page);
  void Fail(const absl::Status& status);
  // Until that generation is durable, or has failed.
  Task<absl::Status> WaitFor(uint64_t generation);

  Storage& storage_;
  LogWriter log_;
  const uint32_t max_held_;
  const size_t max_pages_;

  absl::flat_hash_map<uint64_t, std::unique_ptr<Page>> pages_;  // by offset / kPageBytes
  std::vector<uint64_t> sweep_;                                 // keys of pages_, in a ring
  size_t hand_ = 0;
  WaitList loaded_;

  std::vector<Page*> dirty_;      // pages with `dirty`
  std::vector<Page*> unsettled_;  // pages with `unsettled`
  uint64_t in_place_entry_ = 0;   // whose pages, and those of entries before, are in their places
  uint32_t held_ = 0;
  uint32_t reserved_ = 0;
  bool after_data_ = false;

  uint64_t generation_ = 0;  // snapshots taken
  uint64_t durable_generation_ = 0;
  uint64_t failed_generation_ = 0;
  absl::Status failure_;   // the last one
  uint64_t failures_ = 0;  // of commits, of writing to the place, of flushes
  bool running_ = false;
  bool appending_ = false;
  bool commit_wanted_ = false;
  uint32_t room_wanted_ = 0;  // coroutines in Reserve
  WaitList committed_;        // a commit became durable or failed
  WaitList room_;             // pages are no longer held
  WaitList idle_;
  std::function<void()> on_durable_;

  uint64_t flushed_bytes_;  // the file had that size at the last flush
  uint64_t structures_end_ = 0;
};

}  // namespace bothy::disk::vhdx
