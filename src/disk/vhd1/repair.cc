#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/damage.h"
#include "disk/vhd1/block_table.h"
#include "disk/vhd1/examine.h"
#include "disk/vhd1/vhd1.h"
#include "support/endian.h"

namespace bothy::disk::vhd1 {
namespace {

constexpr size_t kChunkBytes = 1 << 20;

// The footer of a fixed image whose file doesn't end with it, as when something was appended to it:
// it tells the size of what is before it.
Task<absl::StatusOr<std::optional<Footer>>> FindFixedFooter(Storage& storage,
                                                            const Progress& progress) {
  std::vector<uint8_t> chunk;
  const uint64_t size = storage.size() / kSectorBytes * kSectorBytes;
  for (uint64_t end = size; end != 0;) {
    const uint64_t begin = end - std::min<uint64_t>(end, kChunkBytes);
    chunk.resize(end - begin);
    const std::span<uint8_t> target(chunk);
    absl::Status status = co_await ReadAt(storage, begin, target);
    CO_RETURN_IF_ERROR(status);
    for (uint64_t at = chunk.size(); at != 0;) {
      at -= kSectorBytes;
      absl::StatusOr<Footer> footer = DecodeFooter(target.subspan(at, kFooterBytes), begin + at);
      if (footer.ok() && footer->type == DiskType::kFixed && footer->disk_bytes() == begin + at) {
        co_return *footer;
      }
    }
    end = begin;
    if (progress) progress(size - end, size);
  }
  co_return std::nullopt;
}

Task<absl::Status> RepairFixed(Storage& storage, const Examination& found,
                               const Progress& progress) {
  if (found.footer.has_value()) {
    if (found.report.sound()) co_return absl::OkStatus();
    // The footer is all that a fixed image has; what is missing besides is the guest's.
    const Problem& problem = found.report.problems.front();
    co_return Damaged(problem.offset, problem.field, problem.message);
  }
  absl::StatusOr<std::optional<Footer>> read = co_await FindFixedFooter(storage, progress);
  CO_ASSIGN_OR_RETURN(const std::optional<Footer> footer, read);
  if (!footer.has_value()) {
    co_return absl::DataLossError(
        "there is no footer, nor a copy of one: neither type nor size can be told");
  }
  absl::Status status = co_await WriteFooters(storage, *footer, footer->disk_bytes());
  co_return status;
}

Task<absl::Status> RewriteHeader(Storage& storage, const Image& image) {
  std::array<uint8_t, kDynamicHeaderBytes> bytes{};
  const std::span<uint8_t> target(bytes);
  const uint64_t at = image.footer.data_offset;
  absl::Status status = co_await ReadAt(storage, at, target);
  CO_RETURN_IF_ERROR(status);
  StoreBe(bytes.data() + kHeaderChecksumAt, Checksum(bytes, kHeaderChecksumAt));
  status = co_await WriteAt(storage, at, target);
  co_return status;
}

struct Move {
  FoundBlock block;
  uint64_t to = 0;
};

// The copies are durable before anything points to them.
Task<absl::Status> PerformMoves(Storage& storage, const Image& image,
                                const std::vector<Move>& moves, const Progress& progress) {
  for (size_t i = 0; i < moves.size(); ++i) {
    absl::Status status = co_await CopyBlock(storage, image, moves[i].block.offset, moves[i].to);
    CO_RETURN_IF_ERROR(status);
    if (progress) progress((i + 1) * image.block_span(), moves.size() * image.block_span());
  }
  absl::Status status = co_await Flush(storage);
  CO_RETURN_IF_ERROR(status);
  for (const Move& move : moves) {
    status = co_await WriteEntry(storage, image, move.block.block,
                                 static_cast<uint32_t>(move.to / kSectorBytes));
    CO_RETURN_IF_ERROR(status);
  }
  status = co_await Flush(storage);
  co_return status;
}

// Blocks that share bytes, each with room of its own behind what the file has.
std::vector<Move> MovesApart(const Storage& storage, Examination& found) {
  std::vector<Move> moves;
  uint64_t end = std::max(found.data_end, storage.size());
  for (const FoundBlock& block : found.overlapping) {
    moves.push_back({.block = block, .to = found.image->AlignBlock(end)});
    end = moves.back().to + found.image->block_span();
  }
  if (!moves.empty()) found.data_end = end;
  return moves;
}

// The last blocks, into the room that nothing refers to. Afterwards the file ends at data_end.
std::vector<Move> MovesTogether(Examination& found) {
  std::vector<Move> moves;
  const Image& image = *found.image;
  const uint64_t span = image.block_span();
  // With overlaps it can't be said what is whose; the next repair may find room.
  if (!found.overlapping.empty()) return moves;
  auto last = found.blocks.rbegin();
  for (const Leak& leak : found.leaks) {
    uint64_t to = image.AlignBlock(leak.offset);
    while (to + span <= leak.offset + leak.length && last != found.blocks.rend() &&
           last->offset > to) {
      moves.push_back({.block = *last, .to = to});
      to = image.AlignBlock(to + span);
      ++last;
    }
  }
  if (moves.empty()) return moves;
  // The end can come forward unless what isn't a block lies there.
  const uint64_t blocks_end = found.blocks.back().offset + span;
  if (found.data_end > blocks_end) return moves;
  uint64_t end = std::max(image.table_end(), image.footer.data_offset + kDynamicHeaderBytes);
  for (const LocatorEntry& entry : image.header->locators) {
    if (entry.platform_code != 0) end = std::max(end, entry.data_offset + entry.room_bytes());
  }
  if (last != found.blocks.rend()) end = std::max(end, last->offset + span);
  for (const Move& move : moves) end = std::max(end, move.to + span);
  found.data_end = std::min(found.data_end, end);
  return moves;
}

// Of blocks that the file's end cuts off what is left stays, and the rest is zero.
Task<absl::Status> CompleteBlocks(Storage& storage, const Examination& found) {
  const uint64_t file_bytes = storage.size();
  if (found.data_end <= file_bytes) co_return absl::OkStatus();
  // Blocks that were dropped, since they lay past the end, mustn't turn up within it.
  absl::Status status = co_await Flush(storage);
  // The footer at the new end first: the old one may be the only good one.
  if (status.ok()) status = co_await WriteFooters(storage, *found.footer, found.data_end);
  const uint64_t end = found.footers.last_offset;
  if (status.ok() && end < file_bytes) {
    status = co_await WriteZeroes(storage, end, file_bytes - end);
  }
  co_return status;
}

Task<absl::Status> RepairBlocks(Storage& storage, const Progress& progress, Examination& found) {
  const Image& image = *found.image;
  for (const uint32_t block : found.outside) {
    absl::Status status = co_await WriteEntry(storage, image, block, BlockTable::kUnused);
    CO_RETURN_IF_ERROR(status);
  }
  absl::Status status = co_await WriteUnused(storage, image, found.past_the_end);
  if (status.ok()) status = co_await CompleteBlocks(storage, found);
  CO_RETURN_IF_ERROR(status);
  const std::vector<Move> apart = MovesApart(storage, found);
  status = co_await PerformMoves(storage, image, apart, progress);
  CO_RETURN_IF_ERROR(status);
  const std::vector<Move> together = MovesTogether(found);
  status = co_await PerformMoves(storage, image, together, progress);
  co_return status;
}

Task<absl::Status> RepairImage(Storage& storage, const Progress& progress, Examination& found) {
  if (found.report.clean()) co_return absl::OkStatus();
  absl::Status status;
  if (!found.footer.has_value() || found.footer->type == DiskType::kFixed) {
    status = co_await RepairFixed(storage, found, progress);
    co_return status;
  }
  if (!found.image.has_value()) {
    co_return absl::DataLossError("the header can't be told from what is left of it");
  }
  if (found.header_checksum_wrong) {
    status = co_await RewriteHeader(storage, *found.image);
    CO_RETURN_IF_ERROR(status);
  }
  status = co_await RepairBlocks(storage, progress, found);
  CO_RETURN_IF_ERROR(status);
  status = co_await WriteFooters(storage, *found.footer, found.data_end);
  co_return status;
}

}  // namespace

Task<absl::Status> WriteEntry(Storage& storage, const Image& image, uint32_t block,
                              uint32_t location) {
  std::array<uint8_t, 4> bytes{};
  StoreBe(bytes.data(), location);
  const std::span<const uint8_t> data(bytes);
  absl::Status status =
      co_await WriteAt(storage, image.header->table_offset + uint64_t{block} * 4, data);
  co_return status;
}

Task<absl::Status> WriteUnused(Storage& storage, const Image& image, uint32_t end) {
  if (end <= image.blocks()) co_return absl::OkStatus();
  const std::vector<uint8_t> unused(size_t{end - image.blocks()} * 4, 0xFF);
  const std::span<const uint8_t> data(unused);
  absl::Status status =
      co_await WriteAt(storage, image.header->table_offset + uint64_t{image.blocks()} * 4, data);
  co_return status;
}

Task<absl::Status> WriteFooters(Storage& storage, const Footer& footer, uint64_t offset) {
  const auto bytes = footer.Encode();
  const std::span<const uint8_t> data(bytes);
  absl::Status status = co_await WriteAt(storage, offset, data);
  if (status.ok()) status = co_await Flush(storage);
  CO_RETURN_IF_ERROR(status);
  // One good footer is there at any moment.
  if (footer.type != DiskType::kFixed) {
    status = co_await WriteAt(storage, 0, data);
    if (status.ok()) status = co_await Flush(storage);
    CO_RETURN_IF_ERROR(status);
  }
  status = co_await storage.Resize(offset + kFooterBytes);
  if (status.ok()) status = co_await Flush(storage);
  co_return status;
}

Task<absl::Status> CopyBlock(Storage& storage, const Image& image, uint64_t from, uint64_t to) {
  std::vector<uint8_t> chunk(std::min<uint64_t>(kChunkBytes, image.block_span()));
  for (uint64_t done = 0; done < image.block_span(); done += chunk.size()) {
    const std::span<uint8_t> part(chunk.data(),
                                  std::min<uint64_t>(chunk.size(), image.block_span() - done));
    absl::Status status = co_await ReadAt(storage, from + done, part);
    if (status.ok()) status = co_await WriteAt(storage, to + done, part);
    CO_RETURN_IF_ERROR(status);
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<CheckReport>> Repair(Storage& storage, Progress progress) {
  absl::StatusOr<Examination> examined = co_await Examine(storage, progress);
  if (!examined.ok()) co_return WithContext(examined.status(), storage.path());
  absl::Status status = co_await RepairImage(storage, progress, *examined);
  if (!status.ok()) co_return WithContext(status, storage.path());
  co_return std::move(examined->report);
}

}  // namespace bothy::disk::vhd1
