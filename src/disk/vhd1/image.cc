#include "disk/vhd1/image.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "disk/damage.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {
namespace {

constexpr uint64_t kTableEntryBytes = 4;
// So that a guest's pages are pages of the file.
constexpr uint64_t kPageBytes = 4096;

uint64_t RoundUp(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

bool Overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length) {
  return a < b + b_length && b < a + a_length;
}

}  // namespace

uint32_t Image::blocks() const {
  return static_cast<uint32_t>((disk_bytes() + header->block_size - 1) / header->block_size);
}

uint64_t Image::table_end() const {
  return header->table_offset + uint64_t{header->max_table_entries} * kTableEntryBytes;
}

uint64_t Image::AlignBlock(uint64_t offset) const {
  const uint64_t all = table_end() + kPageBytes + RoundUp(block_span(), kPageBytes) * blocks();
  const uint64_t bitmap = header->bitmap_bytes();
  return RoundUp(offset + bitmap, all > kMaxFileBytes ? kSectorBytes : kPageBytes) - bitmap;
}

bool Image::OverlapsMetadata(uint64_t offset, uint64_t length) const {
  return Overlap(offset, length, 0, kFooterBytes) ||
         Overlap(offset, length, footer.data_offset, kDynamicHeaderBytes) ||
         Overlap(offset, length, header->table_offset, table_end() - header->table_offset);
}

Task<absl::StatusOr<FooterCopies>> ReadFooters(Storage& storage) {
  FooterCopies copies;
  const uint64_t size = storage.size();
  copies.last_offset = size;
  if (size < kShortFooterBytes) co_return copies;

  std::array<uint8_t, kFooterBytes> bytes{};
  const size_t length = std::min<uint64_t>(size, kFooterBytes);
  const std::span<uint8_t> end(bytes.data(), length);
  absl::Status status = co_await ReadAt(storage, size - length, end);
  CO_RETURN_IF_ERROR(status);
  if (HasFooterCookie(end)) {
    copies.last_offset = size - length;
    copies.last = DecodeFooter(end, copies.last_offset);
  } else if (const auto shorter = end.last(kShortFooterBytes); HasFooterCookie(shorter)) {
    copies.last_offset = size - kShortFooterBytes;
    copies.last = DecodeFooter(shorter, copies.last_offset);
  }
  if (size < kFooterBytes) co_return copies;
  const std::span<uint8_t> begin(bytes);
  status = co_await ReadAt(storage, 0, begin);
  CO_RETURN_IF_ERROR(status);
  copies.first = DecodeFooter(begin, 0);
  // A fixed disk's first sector is its guest's, and may hold anything, a footer too.
  if (copies.first.ok() && copies.first->type == DiskType::kFixed) {
    copies.first = absl::NotFoundError("no VHD footer");
  }
  co_return copies;
}

Task<absl::StatusOr<Image>> ReadImage(Storage& storage) {
  absl::StatusOr<FooterCopies> read = co_await ReadFooters(storage);
  CO_ASSIGN_OR_RETURN(const FooterCopies copies, read);
  Image image;
  image.footer_offset = copies.last_offset;
  image.last_footer_good = copies.last.ok();
  image.first_footer_good = copies.first.ok();
  if (copies.last.ok()) {
    image.footer = *copies.last;
  } else if (copies.first.ok()) {
    image.footer = *copies.first;
  } else if (!absl::IsNotFound(copies.last.status())) {
    co_return copies.last.status();
  } else if (!absl::IsNotFound(copies.first.status())) {
    co_return copies.first.status();
  } else {
    co_return Damaged(copies.last_offset, "Footer.Cookie", "there is no VHD footer");
  }

  if (image.footer.type != DiskType::kFixed) {
    const uint64_t at = image.footer.data_offset;
    if (storage.size() < kDynamicHeaderBytes || at > storage.size() - kDynamicHeaderBytes ||
        at < kFooterBytes) {
      co_return Damaged(16, "Footer.DataOffset",
                        absl::StrCat(at, " isn't within the file of ", storage.size(), " bytes"));
    }
    std::array<uint8_t, kDynamicHeaderBytes> bytes{};
    const std::span<uint8_t> target(bytes);
    absl::Status status = co_await ReadAt(storage, at, target);
    CO_RETURN_IF_ERROR(status);
    absl::StatusOr<DynamicHeader> header = DecodeDynamicHeader(bytes, at);
    CO_ASSIGN_OR_RETURN(image.header, header);
  }
  absl::Status status = CheckLayout(image, storage.size());
  CO_RETURN_IF_ERROR(status);
  co_return image;
}

absl::Status CheckLayout(const Image& image, uint64_t file_bytes) {
  const uint64_t size = image.disk_bytes();
  if (!image.header.has_value()) {
    if (size > image.footer_offset) {
      return Damaged(image.footer_offset, "Footer.CurrentSize",
                     absl::StrCat(size, " where the file holds ", image.footer_offset));
    }
    return absl::OkStatus();
  }
  const DynamicHeader& header = *image.header;
  const uint64_t at = image.footer.data_offset;
  const uint64_t blocks = (size + header.block_size - 1) / header.block_size;
  if (header.max_table_entries < blocks) {
    return Damaged(at + 28, "DynamicHeader.MaxTableEntries",
                   absl::StrCat(header.max_table_entries, " where the disk has ", blocks,
                                " blocks of ", header.block_size, " bytes"));
  }
  if (blocks > kMaxBlocks) {
    return Unsupported(
        at + 32, "DynamicHeader.BlockSize",
        absl::StrCat(header.block_size, " makes ", blocks, " blocks, more than ", kMaxBlocks));
  }
  // Only what the disk's size needs has to be there.
  const uint64_t table_bytes = blocks * kTableEntryBytes;
  if (header.table_offset % kSectorBytes != 0 || header.table_offset < kFooterBytes ||
      header.table_offset > file_bytes || table_bytes > file_bytes - header.table_offset) {
    return Damaged(at + 16, "DynamicHeader.TableOffset",
                   absl::StrCat(table_bytes, " bytes at ", header.table_offset,
                                " don't lie on sectors within the file of ", file_bytes));
  }
  if (Overlap(header.table_offset, table_bytes, at, kDynamicHeaderBytes)) {
    return Damaged(at + 16, "DynamicHeader.TableOffset",
                   absl::StrCat(header.table_offset, " lies on the header at ", at));
  }
  return absl::OkStatus();
}

}  // namespace bothy::disk::vhd1
