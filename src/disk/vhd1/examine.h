// What Check found, in the detail that Repair and Resize need.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "disk/check_report.h"
#include "disk/vhd1/image.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {

struct FoundBlock {
  uint32_t block = 0;
  uint64_t offset = 0;  // of its bitmap in the file
};
struct Leak {
  uint64_t offset = 0;
  uint64_t length = 0;
};

struct Examination {
  CheckReport report;
  FooterCopies footers;
  std::optional<Footer> footer;  // the good one
  std::optional<Image> image;    // when header and table make sense
  bool header_checksum_wrong = false;
  std::vector<FoundBlock> blocks;       // that begin within the file, by offset
  std::vector<FoundBlock> overlapping;  // those of them that lie on another
  std::vector<uint32_t> outside;        // blocks whose entries point at nothing
  uint32_t past_the_end = 0;  // behind the last entry past the disk's end that is in use; 0: none
  std::vector<Leak> leaks;
  uint64_t data_end = 0;  // behind the last block; past the file's end when that cuts it off
};

Task<absl::StatusOr<Examination>> Examine(Storage& storage, const Progress& progress);

// Writes a table entry.
Task<absl::Status> WriteEntry(Storage& storage, const Image& image, uint32_t block,
                              uint32_t location);
// Writes entries from the disk's end on, up to `end`, as unused.
Task<absl::Status> WriteUnused(Storage& storage, const Image& image, uint32_t end);
// Writes `footer` at `offset` and ends the file behind it; then the copy, where the type has one.
Task<absl::Status> WriteFooters(Storage& storage, const Footer& footer, uint64_t offset);
// Copies a block, bitmap and all, to `to`, in the same file.
Task<absl::Status> CopyBlock(Storage& storage, const Image& image, uint64_t from, uint64_t to);

}  // namespace bothy::disk::vhd1
