#include "disk/vhd1/bitmap_cache.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "disk/vhd1/vhd1.h"
#include "support/endian.h"

namespace bothy::disk::vhd1 {

uint32_t Bitmap::Run(uint32_t sector, uint32_t end) const {
  const bool value = Get(sector);
  const uint8_t whole = value ? 0xFF : 0;
  uint32_t at = sector;
  while (at < end) {
    if (at % 8 == 0 && end - at >= 8 && bytes_[at / 8] == whole) {
      at += 8;
    } else if (Get(at) == value) {
      ++at;
    } else {
      break;
    }
  }
  return at - sector;
}

bool Bitmap::SetRange(uint32_t first, uint32_t count) {
  const uint32_t end = first + count;
  if (Get(first) && Run(first, end) == count) return false;
  for (uint32_t at = first; at < end;) {
    if (at % 8 == 0 && end - at >= 8) {
      bytes_[at / 8] = 0xFF;
      at += 8;
    } else {
      bytes_[at / 8] |= static_cast<uint8_t>(0x80 >> (at % 8));
      ++at;
    }
  }
  dirty_begin_ = std::min<size_t>(dirty_begin_, first / 8);
  dirty_end_ = std::max<size_t>(dirty_end_, (end - 1) / 8 + 1);
  return true;
}

Bitmap* BitmapCache::Find(uint32_t block) {
  const auto found = bitmaps_.find(block);
  if (found == bitmaps_.end()) return nullptr;
  by_use_.splice(by_use_.begin(), by_use_, found->second->use_);
  return found->second.get();
}

Bitmap* BitmapCache::Add(uint32_t block, uint32_t location, std::vector<uint8_t> bytes) {
  Evict();
  auto bitmap = std::make_unique<Bitmap>(std::move(bytes), sectors_, location);
  Bitmap* added = bitmap.get();
  by_use_.push_front(block);
  added->use_ = by_use_.begin();
  bitmaps_[block] = std::move(bitmap);
  return added;
}

void BitmapCache::Erase(uint32_t block) {
  const auto found = bitmaps_.find(block);
  if (found == bitmaps_.end()) return;
  dirty_.erase(block);
  by_use_.erase(found->second->use_);
  bitmaps_.erase(found);
}

void BitmapCache::SetRange(uint32_t block, Bitmap& bitmap, uint32_t first, uint32_t count) {
  if (bitmap.SetRange(first, count)) dirty_[block] = &bitmap;
}

std::vector<BitmapCache::Change> BitmapCache::BeginCommit() {
  std::vector<Change> changes;
  changes.reserve(dirty_.size());
  for (const auto& [block, bitmap] : dirty_) {
    const size_t begin = bitmap->dirty_begin_ / kSectorBytes * kSectorBytes;
    const size_t end = (bitmap->dirty_end_ + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
    const std::span<const uint8_t> bytes = bitmap->bytes().subspan(begin, end - begin);
    changes.push_back({.block = block,
                       .location = bitmap->location_,
                       .offset = begin,
                       .bytes = {bytes.begin(), bytes.end()}});
    bitmap->committing_ = true;
    bitmap->dirty_begin_ = SIZE_MAX;
    bitmap->dirty_end_ = 0;
  }
  dirty_.clear();
  return changes;
}

void BitmapCache::EndCommit(const std::vector<Change>& changes, bool durable) {
  for (const Change& change : changes) {
    const auto found = bitmaps_.find(change.block);
    // Freed meanwhile, or freed and allocated again.
    if (found == bitmaps_.end() || found->second->location_ != change.location) continue;
    Bitmap& bitmap = *found->second;
    bitmap.committing_ = false;
    if (durable) continue;
    bitmap.dirty_begin_ = std::min<size_t>(bitmap.dirty_begin_, change.offset);
    bitmap.dirty_end_ = std::max<size_t>(bitmap.dirty_end_, change.offset + change.bytes.size());
    dirty_[change.block] = &bitmap;
  }
}

void BitmapCache::Evict() {
  auto oldest = by_use_.end();
  while (bitmaps_.size() * bitmap_bytes_ >= most_bytes_ && oldest != by_use_.begin()) {
    --oldest;
    const auto found = bitmaps_.find(*oldest);
    if (found->second->dirty() || found->second->committing_) continue;
    bitmaps_.erase(found);
    oldest = by_use_.erase(oldest);
  }
}

}  // namespace bothy::disk::vhd1
