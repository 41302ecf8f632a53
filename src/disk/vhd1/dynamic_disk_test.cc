// Images of all types under random load, with requests completing in any order.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "disk/borrowed_storage.h"
#include "disk/testing/memory_storage.h"
#include "disk/testing/random_load.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {
namespace {

constexpr uint64_t kDiskBytes = (9 << 20) + 512 * 3;

struct Shape {
  Type type = Type::kDynamic;
  uint32_t block_bytes = kMinBlockBytes;
  uint64_t seed = 1;
};

void ParentSector(uint64_t sector, std::span<uint8_t> bytes) {
  // Every third sector of the parent is written; its last 100 KiB are past its end.
  if (sector % 3 == 0 && sector < (kDiskBytes - (100 << 10)) / 512) {
    SectorHistory::Fill(sector, 1'000'000, bytes);
  }
}

// One image, or a child and its parent.
class Images {
 public:
  explicit Images(const Shape& shape)
      : image_({.path = "child.vhd", .immediate = false, .seed = SeedFrom(shape.seed)}),
        parent_({.path = "base.vhd", .immediate = false, .seed = shape.seed + 1}) {
    CreateOptions options = {
        .size_bytes = kDiskBytes, .type = shape.type, .block_size_bytes = shape.block_bytes};
    if (shape.type == Type::kDifferencing) {
      MakeParent();
      options.parent = {.relative_path = "base.vhd", .absolute_path = "", .linkage = parent_id_};
    }
    CHECK_OK(Await(Create(image_, options), image_));
  }

  std::unique_ptr<Disk> OpenImage(bool read_only = false) {
    OpenOptions options;
    options.read_only = read_only;
    options.open_parent = [this](const ParentReference&) { return OpenParent(); };
    auto disk = Await(Open(std::make_unique<BorrowedStorage>(image_), std::move(options)), both());
    CHECK_OK(disk.status());
    return *std::move(disk);
  }
  Task<absl::StatusOr<std::unique_ptr<Disk>>> OpenParent() {
    OpenOptions options;
    options.read_only = true;
    return Open(std::make_unique<BorrowedStorage>(parent_), std::move(options));
  }
  MemoryStorage& image() { return image_; }
  std::vector<MemoryStorage*> both() { return {&image_, &parent_}; }

 private:
  void MakeParent() {
    const CreateOptions options = {.size_bytes = kDiskBytes - (100 << 10)};
    CHECK_OK(Await(Create(parent_, options), parent_));
    auto disk = Await(Open(std::make_unique<BorrowedStorage>(parent_), OpenOptions()), parent_);
    CHECK_OK(disk.status());
    for (uint64_t sector = 0; sector * 512 < options.size_bytes; sector += 3) {
      std::array<uint8_t, 512> bytes{};
      ParentSector(sector, bytes);
      CHECK_OK(Await(WriteAt(**disk, sector * 512, bytes), parent_));
    }
    CHECK_OK(Await((*disk)->Close(), parent_));
    parent_id_ = *(*disk)->linkage();
  }

  MemoryStorage image_;
  MemoryStorage parent_;
  Guid parent_id_;
};

SectorHistory HistoryFor(const Shape& shape) {
  return SectorHistory(kDiskBytes / 512,
                       shape.type == Type::kDifferencing ? ParentSector : SectorHistory::Initial());
}

class VhdLoadTest : public testing::TestWithParam<Shape> {};

TEST_P(VhdLoadTest, ReadsBackWhatWasWritten) {
  const Shape& shape = GetParam();
  Images images(shape);
  SectorHistory history = HistoryFor(shape);
  for (int session = 0; session < 3; ++session) {
    std::unique_ptr<Disk> disk = images.OpenImage();
    RandomLoad load(*disk, history, images.both(), {.seed = shape.seed * 10 + session});
    ASSERT_EQ(load.Run(OperationsOr(2000)), "");
    ASSERT_EQ(load.Verify(), "");
    ASSERT_TRUE(Await(disk->Close(), images.both()).ok());
    disk.reset();

    disk = images.OpenImage(true);
    RandomLoad again(*disk, history, images.both(), {});
    ASSERT_EQ(again.Verify(), "");
    ASSERT_TRUE(Await(disk->Close(), images.both()).ok());
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, VhdLoadTest,
    testing::Values(Shape{.type = Type::kFixed}, Shape{.type = Type::kDynamic},
                    Shape{.type = Type::kDynamic, .block_bytes = 2 << 20, .seed = 2},
                    Shape{.type = Type::kDynamic, .block_bytes = 4 << 20, .seed = 3},
                    Shape{.type = Type::kDifferencing, .seed = 4},
                    Shape{.type = Type::kDifferencing, .block_bytes = 2 << 20, .seed = 5},
                    Shape{.type = Type::kDifferencing, .block_bytes = 4 << 20, .seed = 6}));

}  // namespace
}  // namespace bothy::disk::vhd1
