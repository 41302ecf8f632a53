// BitmapCache: the sector bitmaps (VHD 1.0, "Data Block") of blocks of which only some sectors are
// present; complete ones need none (BlockTable::complete). Bounded: clean ones that were not used
// for long go first.
#pragma once

#include <algorithm>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace bothy::disk::vhd1 {

// One bit a sector, the most significant one of a byte first.
class Bitmap {
 public:
  Bitmap(std::vector<uint8_t> bytes, uint32_t sectors, uint32_t location)
      : bytes_(std::move(bytes)), sectors_(sectors), location_(location) {}

  [[nodiscard]] bool Get(uint32_t sector) const {
    return (bytes_[sector / 8] >> (7 - sector % 8) & 1) != 0;
  }
  // The length of the run of equal bits that begins at `sector` and ends at `end` at the latest.
  [[nodiscard]] uint32_t Run(uint32_t sector, uint32_t end) const;
  // False when all of them were set.
  bool SetRange(uint32_t first, uint32_t count);
  [[nodiscard]] bool AllSet() const { return Get(0) && Run(0, sectors_) == sectors_; }
  [[nodiscard]] std::span<const uint8_t> bytes() const { return bytes_; }

  [[nodiscard]] bool dirty() const { return dirty_begin_ < dirty_end_; }

 private:
  friend class BitmapCache;
  std::vector<uint8_t> bytes_;
  uint32_t sectors_;
  uint32_t location_;
  bool committing_ = false;
  // Bytes changed since the last commit began.
  size_t dirty_begin_ = SIZE_MAX;
  size_t dirty_end_ = 0;
  std::list<uint32_t>::iterator use_;
};

class BitmapCache {
 public:
  // `bitmap_bytes` a block, `sectors` of them used.
  BitmapCache(uint64_t bitmap_bytes, uint32_t sectors, uint64_t most_bytes)
      : bitmap_bytes_(bitmap_bytes), sectors_(sectors), most_bytes_(most_bytes) {}

  // Null when it isn't there. Pointers are good until the next Add or Erase, that is until the next
  // co_await.
  Bitmap* Find(uint32_t block);
  // Of the block that lies at `location` (BlockTable). There is none yet.
  Bitmap* Add(uint32_t block, uint32_t location, std::vector<uint8_t> bytes);
  // Nothing is present yet.
  Bitmap* AddEmpty(uint32_t block, uint32_t location) {
    return Add(block, location, std::vector<uint8_t>(bitmap_bytes_));
  }
  void Erase(uint32_t block);
  void SetRange(uint32_t block, Bitmap& bitmap, uint32_t first, uint32_t count);

  [[nodiscard]] size_t dirty() const { return dirty_.size(); }
  // How many dirty ones the bound leaves room for.
  [[nodiscard]] size_t most_dirty() const {
    return std::max<size_t>(most_bytes_ / bitmap_bytes_, 2);
  }

  // The changed part of a bitmap, in whole sectors of the file.
  struct Change {
    uint32_t block = 0;
    uint32_t location = 0;
    uint64_t offset = 0;  // within the bitmap
    std::vector<uint8_t> bytes;
  };
  // All dirty ones, which are clean from now on, and stay here until EndCommit.
  std::vector<Change> BeginCommit();
  // `durable` false: what began is dirty again.
  void EndCommit(const std::vector<Change>& changes, bool durable);

 private:
  void Evict();

  const uint64_t bitmap_bytes_;
  const uint32_t sectors_;
  const uint64_t most_bytes_;
  absl::flat_hash_map<uint32_t, std::unique_ptr<Bitmap>> bitmaps_;
  std::list<uint32_t> by_use_;  // the last used one first
  absl::flat_hash_map<uint32_t, Bitmap*> dirty_;
};

}  // namespace bothy::disk::vhd1
