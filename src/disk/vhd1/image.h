// An image's fixed structures, read once: which footer is the good one, the dynamic header, what
// lies where.
#pragma once

#include <cstdint>
#include <optional>

#include "disk/storage.h"
#include "disk/vhd1/dynamic_header.h"
#include "disk/vhd1/footer.h"
#include "support/status.h"
#include "support/task.h"

namespace bothy::disk::vhd1 {

// What the two places where a footer can be hold. `last` describes the file's end: NotFound when
// there is nothing like a footer.
struct FooterCopies {
  absl::StatusOr<Footer> last = absl::NotFoundError("no VHD footer");
  absl::StatusOr<Footer> first = absl::NotFoundError("no VHD footer");
  // Where the last one begins, or would have to: the end of what the file holds besides.
  uint64_t last_offset = 0;
};

// Locations in the table are 32 bits of sectors, of which the last value means "unused".
inline constexpr uint64_t kMaxFileBytes = (uint64_t{UINT32_MAX} - 1) * 512;

struct Image {
  Footer footer;
  // Where the last footer begins; for a file that lost it, the file's end.
  uint64_t footer_offset = 0;
  bool last_footer_good = false;
  bool first_footer_good = false;
  std::optional<DynamicHeader> header;  // none for a fixed disk

  [[nodiscard]] uint64_t disk_bytes() const { return footer.disk_bytes(); }
  // Entries of the table that the disk's size needs.
  [[nodiscard]] uint32_t blocks() const;
  [[nodiscard]] uint64_t table_end() const;
  // Bytes of a block with its bitmap.
  [[nodiscard]] uint64_t block_span() const { return header->bitmap_bytes() + header->block_size; }
  // Where the first block at or behind `offset` goes: its data begins on a page of the file, unless
  // the image is so large that what is lost between blocks would not fit into it.
  [[nodiscard]] uint64_t AlignBlock(uint64_t offset) const;
  // Whether a block at `offset` would lie on the footer's copy, the header or the table.
  [[nodiscard]] bool OverlapsMetadata(uint64_t offset, uint64_t length) const;
};

Task<absl::StatusOr<FooterCopies>> ReadFooters(Storage& storage);

// The whole of it. The last footer counts, and its copy at the beginning where that one is missing
// or damaged. Errors as in vhd1.h, without the path.
Task<absl::StatusOr<Image>> ReadImage(Storage& storage);

// Puts the header in, or says what doesn't fit together.
absl::Status CheckLayout(const Image& image, uint64_t file_bytes);

}  // namespace bothy::disk::vhd1
