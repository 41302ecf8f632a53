#include "disk/vhd1/block_table.h"

#include <algorithm>

#include "disk/vhd1/fan_out.h"
#include "support/endian.h"

namespace bothy::disk::vhd1 {
namespace {

constexpr size_t kWritesInFlight = 32;

}  // namespace

BlockTable::BlockTable(Storage& storage, uint64_t offset, uint32_t blocks)
    : storage_(storage), offset_(offset), blocks_(blocks), pages_((blocks + kPage - 1) / kPage) {}

Task<absl::Status> BlockTable::ReadEntries(uint32_t first, uint32_t count,
                                           std::vector<uint32_t>& locations) {
  count = std::min(count, blocks_ - first);
  std::vector<uint8_t> bytes(size_t{count} * 4);
  const std::span<uint8_t> target(bytes);
  absl::Status status = co_await ReadAt(storage_, EntryOffset(first), target);
  CO_RETURN_IF_ERROR(status);
  locations.resize(count);
  for (uint32_t i = 0; i < count; ++i)
    locations[i] = LoadBe<uint32_t>(bytes.data() + size_t{i} * 4);
  co_return absl::OkStatus();
}

Task<absl::Status> BlockTable::Load(uint32_t block) {
  if (IsLoaded(block)) co_return absl::OkStatus();
  std::vector<uint32_t> locations;
  absl::Status status = co_await ReadEntries(block / kPage * kPage, kPage, locations);
  CO_RETURN_IF_ERROR(status);
  // Somebody else may have loaded it meanwhile, and changed it since.
  if (IsLoaded(block)) co_return absl::OkStatus();
  auto page = std::make_unique<Page>();
  page->locations.fill(kUnused);
  std::ranges::copy(locations, page->locations.begin());
  pages_[block / kPage] = std::move(page);
  co_return absl::OkStatus();
}

void BlockTable::Set(uint32_t block, uint32_t location) {
  uint32_t& entry = pages_[block / kPage]->locations[block % kPage];
  // What the file has is what was there before the first change.
  dirty_.try_emplace(block, entry);
  entry = location;
}

std::vector<BlockTable::Change> BlockTable::BeginCommit() {
  std::vector<Change> changes;
  changes.reserve(dirty_.size());
  for (const auto& [block, before] : dirty_) {
    committing_[block] = {.before = before, .after = location(block)};
    changes.push_back({.block = block, .location = location(block)});
  }
  dirty_.clear();
  return changes;
}

uint32_t BlockTable::CommitValue(uint32_t block) const {
  const auto newer = dirty_.find(block);
  return newer == dirty_.end() ? location(block) : newer->second;
}

Task<absl::Status> BlockTable::WriteCommit() {
  FanOut writes;
  auto change = committing_.begin();
  while (change != committing_.end()) {
    // Sectors of the table with changes that follow each other go in one write.
    const uint32_t first = change->first / kSectorEntries * kSectorEntries;
    uint32_t end = first;
    while (change != committing_.end() && change->first < end + kSectorEntries) {
      end = change->first / kSectorEntries * kSectorEntries + kSectorEntries;
      ++change;
    }
    end = std::min(end, blocks_);
    std::vector<uint8_t> bytes(size_t{end - first} * 4);
    for (uint32_t block = first; block < end; ++block) {
      StoreBe(bytes.data() + size_t{block - first} * 4, CommitValue(block));
    }
    writes.Write(storage_, EntryOffset(first), std::move(bytes));
    co_await writes.AtMost(kWritesInFlight);
  }
  co_await writes.AtMost(0);
  co_return writes.status();
}

void BlockTable::EndCommit(bool durable) {
  if (!durable) {
    for (const auto& [block, change] : committing_) dirty_.insert_or_assign(block, change.before);
  }
  committing_.clear();
}

}  // namespace bothy::disk::vhd1
