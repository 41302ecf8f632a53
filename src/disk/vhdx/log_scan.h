// Finding what a log says ([MS-VHDX] 2.3.2, 2.3.3), and reading it sector by sector.
//
// The log may have been written by anybody. Its entries are looked at once, in pieces, so that time
// grows with the length of the log and memory doesn't: a sector that is part of one entry can't
// begin another, since the signatures differ.
#pragma once

#include <cstdint>
#include <vector>

#include "disk/storage.h"
#include "disk/vhdx/log_entry.h"
#include "support/guid.h"
#include "support/task.h"

namespace bothy::disk::vhdx {

struct LogPlace {
  uint64_t offset = 0;  // bytes, in the file
  uint64_t length = 0;  // bytes
  Guid guid;            // of the header, not zero
};

// Sectors of the ring, read ahead.
class LogReader {
 public:
  LogReader(Storage& storage, const LogPlace& place) : storage_(storage), place_(place) {}
  [[nodiscard]] uint64_t sectors() const { return place_.length / kLogSectorBytes; }
  // `index` counts from the beginning of the ring and wraps. Valid until the next Fetch.
  [[nodiscard]] LogSector sector(uint64_t index) const;
  [[nodiscard]] bool Has(uint64_t index) const;
  Task<absl::Status> Fetch(uint64_t index);

 private:
  Storage& storage_;
  LogPlace place_;
  uint64_t first_ = 0;  // sector that the buffer begins with
  std::vector<uint8_t> buffer_;
};

struct LogEntryPlace {
  uint64_t sector = 0;  // where it begins in the ring
  LogEntryHeader header;
};

// The entries of the active sequence, oldest first: from the head's tail to the head. DataLoss when
// there is none.
Task<absl::StatusOr<std::vector<LogEntryPlace>>> FindActiveSequence(Storage& storage,
                                                                    const LogPlace& place);

}  // namespace bothy::disk::vhdx
