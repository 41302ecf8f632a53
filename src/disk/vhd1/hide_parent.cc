#include "disk/vhd1/hide_parent.h"

#include <algorithm>
#include <span>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/vhd1/vhd1.h"
#include "support/endian.h"

namespace bothy::disk::vhd1 {
namespace {

// Of the table, written at once.
constexpr size_t kEntries = size_t{64} * 1024;

// Which blocks get room, and where.
struct NewBlocks {
  uint32_t first = 0;
  std::vector<uint32_t> locations;  // in sectors, as the table has them
  uint64_t end = 0;                 // of the last one in the file
};

NewBlocks PlaceBlocks(const Image& image, uint64_t begin, uint64_t end, uint64_t data_end) {
  NewBlocks blocks = {.first = static_cast<uint32_t>(begin / image.header->block_size),
                      .locations = {},
                      .end = data_end};
  for (uint64_t block = blocks.first; block * image.header->block_size < end; ++block) {
    const uint64_t offset = image.AlignBlock(blocks.end);
    blocks.locations.push_back(static_cast<uint32_t>(offset / kSectorBytes));
    blocks.end = offset + image.block_span();
  }
  return blocks;
}

// Sectors from `first` on are there.
void SetBits(std::span<uint8_t> bitmap, uint64_t first, uint64_t sectors) {
  for (uint64_t sector = first; sector < sectors; ++sector) {
    bitmap[sector / 8] |= static_cast<uint8_t>(0x80 >> (sector % 8));
  }
}

Task<absl::Status> WriteBitmaps(Storage& storage, const Image& image, uint64_t begin,
                                const NewBlocks& blocks, const Progress& progress) {
  const uint64_t sectors = image.header->block_size / kSectorBytes;
  std::vector<uint8_t> bitmap(image.header->bitmap_bytes());
  const std::span<const uint8_t> bytes(bitmap);
  SetBits(bitmap, begin % image.header->block_size / kSectorBytes, sectors);
  for (size_t i = 0; i < blocks.locations.size(); ++i) {
    absl::Status status =
        co_await WriteAt(storage, blocks.locations[i] * uint64_t{kSectorBytes}, bytes);
    CO_RETURN_IF_ERROR(status);
    if (i == 0) SetBits(bitmap, 0, sectors);
    if (progress) {
      progress((i + 1) * image.header->block_size,
               blocks.locations.size() * image.header->block_size);
    }
  }
  co_return absl::OkStatus();
}

Task<absl::Status> WriteEntries(Storage& storage, const Image& image, const NewBlocks& blocks) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i < blocks.locations.size(); i += kEntries) {
    const auto part = std::span(blocks.locations).subspan(i);
    const auto locations = part.first(std::min(kEntries, part.size()));
    bytes.resize(locations.size() * 4);
    for (size_t at = 0; at < locations.size(); ++at) {
      StoreBe(bytes.data() + at * 4, locations[at]);
    }
    const std::span<const uint8_t> data(bytes);
    absl::Status status = co_await WriteAt(
        storage, image.header->table_offset + (uint64_t{blocks.first} + i) * 4, data);
    CO_RETURN_IF_ERROR(status);
  }
  co_return absl::OkStatus();
}

bool IsThere(const Examination& found, uint64_t block) {
  return std::ranges::find(found.blocks, block, &FoundBlock::block) != found.blocks.end();
}

}  // namespace

absl::Status CheckRoomToHide(const Image& image, const HiddenRange& range, uint64_t data_end) {
  if (range.begin >= range.end) return absl::OkStatus();
  const NewBlocks blocks = PlaceBlocks(image, range.begin, range.end, data_end);
  if (blocks.end + kFooterBytes <= kMaxFileBytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("can't grow over ", range.begin, " bytes: hiding what the parent has up to ",
                   range.end, " takes more than a file of ", kMaxFileBytes, " bytes"));
}

Task<absl::Status> HideTail(Storage& storage, const Image& image, const FoundBlock& block,
                            uint64_t kept) {
  std::vector<uint8_t> bitmap(image.header->bitmap_bytes());
  const std::span<uint8_t> bytes(bitmap);
  absl::Status status = co_await ReadAt(storage, block.offset, bytes);
  CO_RETURN_IF_ERROR(status);
  SetBits(bitmap, kept / kSectorBytes, image.header->block_size / kSectorBytes);
  status = co_await WriteAt(storage, block.offset, std::span<const uint8_t>(bytes));
  co_return status;
}

Task<absl::Status> HideParent(Storage& storage, const Image& grown, const HiddenRange& range,
                              const Progress& progress, Examination& found) {
  const uint64_t block_size = grown.header->block_size;
  uint64_t begin = range.begin;
  if (begin % block_size != 0 && IsThere(found, begin / block_size)) {
    begin = (begin / block_size + 1) * block_size;
  }
  if (begin >= range.end) co_return absl::OkStatus();
  const NewBlocks blocks = PlaceBlocks(grown, begin, range.end, found.data_end);
  // The footer moves behind them first. What is past the file's end reads as zero then; what was
  // before it, the old footer for one, needn't.
  const uint64_t zero_from = found.data_end;
  const uint64_t zero_to = std::min(storage.size(), blocks.end);
  found.data_end = blocks.end;
  absl::Status status =
      co_await WriteFooters(storage, found.image->footer, std::max(found.data_end, storage.size()));
  if (status.ok() && zero_from < zero_to) {
    status = co_await WriteZeroes(storage, zero_from, zero_to - zero_from);
  }
  if (status.ok()) status = co_await WriteBitmaps(storage, grown, begin, blocks, progress);
  if (status.ok()) status = co_await Flush(storage);
  if (status.ok()) status = co_await WriteEntries(storage, grown, blocks);
  if (status.ok()) status = co_await Flush(storage);
  co_return status;
}

}  // namespace bothy::disk::vhd1
