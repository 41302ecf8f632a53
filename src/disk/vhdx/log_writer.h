// LogWriter: the log of an image that is being changed ([MS-VHDX] 2.3): one entry at a time, each a
// group of pages that are replaced together or not at all.
//
// The order that keeps an image whole is the caller's to follow:
//   1. Append(pages): they are in the log, flushed. From here on a crash can't undo them.
//   2. Write the pages to their places.
//   3. A flush, then AppliedUpTo(entry): the log needs the entry no more.
// An entry takes at most a third of the ring, so that the next entry, the one before it, which may
// still be needed, and the one that names that as its tail always fit.
#pragma once

#include <cstdint>
#include <deque>
#include <span>

#include "disk/storage.h"
#include "disk/vhdx/header_store.h"
#include "disk/vhdx/log_entry.h"
#include "support/task.h"

namespace bothy::disk::vhdx {

class LogWriter {
 public:
  // The log is empty: its header has no LogGuid. Both outlive the writer.
  LogWriter(Storage& storage, HeaderStore& headers);

  // Pages that one entry has room for.
  [[nodiscard]] uint32_t max_pages() const { return max_pages_; }

  struct FileSizes {
    uint64_t flushed = 0;  // the file had that size at the last flush
    uint64_t last = 0;     // every structure, those of this entry included, ends before it
  };
  // Puts `pages`, at most max_pages() and at least one, into the log, durably; the sequence number
  // of their entry is last_entry() afterwards. Not while another is under way. After an error they
  // may or may not be there; they have to be in the next entry. The first entry is followed by the
  // header's saying that there is a log.
  Task<absl::Status> Append(std::span<const PageWrite> pages, FileSizes sizes);
  // Of the last successful Append; 0 before.
  [[nodiscard]] uint64_t last_entry() const { return next_sequence_ - 1; }
  // The pages of all entries up to this one are durably in their places, or in later entries.
  void AppliedUpTo(uint64_t sequence_number);

  // The header says that the log is empty. Everything is applied.
  Task<absl::Status> Finish();

 private:
  struct Entry {
    uint64_t sequence_number;
    uint64_t offset;  // in the ring
    uint64_t length;
  };
  [[nodiscard]] uint64_t ring_bytes() const { return headers_.current().log_length; }
  Task<absl::Status> WriteRing(uint64_t at, std::span<const uint8_t> bytes);

  Storage& storage_;
  HeaderStore& headers_;
  const uint32_t max_pages_;
  Guid guid_;               // zero: not in use
  bool announced_ = false;  // the header has it
  uint64_t head_ = 0;       // where the next entry goes, in the ring
  uint64_t next_sequence_ = 1;
  uint64_t applied_ = 0;  // entries up to it aren't needed
  // Oldest first: those of the sequence that the newest durable entry ends.
  std::deque<Entry> sequence_;
};

}  // namespace bothy::disk::vhdx
