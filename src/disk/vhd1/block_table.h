// BlockTable: the block allocation table (VHD 1.0, "Block Allocation Table and Data Blocks"), read
// page by page when it is first asked for, and written back by commits (dynamic_disk.h).
//
// An entry's value in memory is what reads and writes go by; the one in the file follows with the
// commit that made it safe. Between the two the entry is dirty.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "disk/storage.h"
#include "support/status.h"
#include "support/task.h"

namespace bothy::disk::vhd1 {

class BlockTable {
 public:
  // "Unused table entries are initialized to 0xFFFFFFFF."
  static constexpr uint32_t kUnused = 0xFFFFFFFF;

  BlockTable(Storage& storage, uint64_t offset, uint32_t blocks);

  [[nodiscard]] uint32_t blocks() const { return blocks_; }
  // Where an entry is in the file, in bytes.
  [[nodiscard]] uint64_t EntryOffset(uint32_t block) const { return offset_ + uint64_t{block} * 4; }

  [[nodiscard]] bool IsLoaded(uint32_t block) const { return pages_[block / kPage] != nullptr; }
  // Reads the page that `block` is on, unless it is there.
  Task<absl::Status> Load(uint32_t block);

  // The sector where the block's bitmap begins, or kUnused. Only of what is loaded, as all below.
  [[nodiscard]] uint32_t location(uint32_t block) const {
    return pages_[block / kPage]->locations[block % kPage];
  }
  // Whether every sector of the block is known to be present: its bitmap needn't be looked at.
  [[nodiscard]] bool complete(uint32_t block) const {
    return pages_[block / kPage]->complete[block % kPage];
  }
  void SetComplete(uint32_t block, bool complete) {
    pages_[block / kPage]->complete[block % kPage] = complete;
  }
  void Set(uint32_t block, uint32_t location);
  // Whether the file doesn't have the block's location yet.
  [[nodiscard]] bool IsDirty(uint32_t block) const {
    return dirty_.contains(block) || committing_.contains(block);
  }

  [[nodiscard]] size_t dirty() const { return dirty_.size(); }
  // Dirty entries as they are now, by block. Further changes belong to the next commit.
  struct Change {
    uint32_t block = 0;
    uint32_t location = kUnused;
  };
  std::vector<Change> BeginCommit();
  // Writes what BeginCommit gave, and nothing newer, to the file.
  Task<absl::Status> WriteCommit();
  // `durable` false: what began stays dirty.
  void EndCommit(bool durable);

  // Calls `use` for every entry of the file that isn't kUnused.
  template <typename Use>
  Task<absl::Status> ForEachInFile(Use use) {
    std::vector<uint32_t> locations;
    for (uint32_t first = 0; first < blocks_; first += kScan) {
      absl::Status status = co_await ReadEntries(first, kScan, locations);
      CO_RETURN_IF_ERROR(status);
      for (uint32_t i = 0; i < locations.size(); ++i) {
        if (locations[i] != kUnused) use(first + i, locations[i]);
      }
    }
    co_return absl::OkStatus();
  }

 private:
  static constexpr uint32_t kPage = 1024;       // entries
  static constexpr uint32_t kScan = 64 * 1024;  // entries
  static constexpr uint32_t kSectorEntries = 128;
  struct Page {
    std::array<uint32_t, kPage> locations;
    std::bitset<kPage> complete;
  };

  // Up to `count` entries from `first` on, as the file has them.
  Task<absl::Status> ReadEntries(uint32_t first, uint32_t count, std::vector<uint32_t>& locations);
  // What the file shall have for `block` after the commit under way.
  [[nodiscard]] uint32_t CommitValue(uint32_t block) const;

  Storage& storage_;
  const uint64_t offset_;
  const uint32_t blocks_;
  std::vector<std::unique_ptr<Page>> pages_;
  // Dirty entries, with what the file has, or will have when the commit under way succeeds.
  std::map<uint32_t, uint32_t> dirty_;
  struct Committing {
    uint32_t before = kUnused;
    uint32_t after = kUnused;
  };
  std::map<uint32_t, Committing> committing_;
};

}  // namespace bothy::disk::vhd1
