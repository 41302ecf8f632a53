// Images of every shape for tests, in memory storages that complete requests in a random order.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "disk/borrowed_storage.h"
#include "disk/testing/memory_storage.h"
#include "disk/testing/sector_history.h"
#include "disk/vhdx/vhdx.h"

namespace bothy::disk::vhdx {

struct Shape {
  Type type = Type::kDynamic;
  uint32_t block_bytes = 1 << 20;
  uint32_t sector_bytes = 512;
  uint64_t disk_bytes = 9 << 20;
  uint64_t seed = 1;
  uint32_t cache_bytes = 8 << 20;

  [[nodiscard]] std::string Name() const;
};

// One image, or a child and its parent, whose end is before the child's.
class TestImages {
 public:
  explicit TestImages(const Shape& shape);

  // On another storage than image() when one is given. Aborts when it can't be opened.
  std::unique_ptr<Disk> OpenImage(bool read_only = false);
  absl::StatusOr<std::unique_ptr<Disk>> TryOpenImage(Storage& storage, bool read_only,
                                                     std::vector<MemoryStorage*> storages);
  // For whoever opens a child.
  [[nodiscard]] ParentOpener parent_opener() {
    return [this](const ParentReference&) { return OpenParent(); };
  }
  MemoryStorage& image() { return image_; }
  MemoryStorage& parent() { return parent_; }
  std::vector<MemoryStorage*> both() { return {&image_, &parent_}; }
  // What the disk holds as long as nobody wrote to it.
  [[nodiscard]] SectorHistory NewHistory() const;
  [[nodiscard]] const Shape& shape() const { return shape_; }

 private:
  void MakeParent();
  Task<absl::StatusOr<std::unique_ptr<Disk>>> OpenParent();

  const Shape shape_;
  MemoryStorage image_;
  MemoryStorage parent_;
  Guid parent_linkage_;
};

// Disk::Settle, for Await.
Task<absl::Status> Settle(Disk& disk);

}  // namespace bothy::disk::vhdx
