#include "disk/vhdx/test_images.h"

#include "absl/strings/str_cat.h"

namespace bothy::disk::vhdx {
namespace {

constexpr uint64_t kParentIsShorterBy = 128 << 10;
// Of the parent, runs of eight sectors: every third one is written.
constexpr uint64_t kRunSectors = 8;

uint64_t ParentBytes(const Shape& shape) { return shape.disk_bytes - kParentIsShorterBy; }

void ParentSector(const Shape& shape, uint64_t sector, std::span<uint8_t> bytes) {
  if (sector / kRunSectors % 3 == 0 && sector < ParentBytes(shape) / 512) {
    SectorHistory::Fill(sector, 1'000'000'000, bytes);
  }
}

}  // namespace

std::string Shape::Name() const {
  constexpr const char* kTypes[] = {"Fixed", "Dynamic", "Differencing"};
  return absl::StrCat(kTypes[static_cast<int>(type)], "Block", block_bytes >> 20, "MiBSector",
                      sector_bytes);
}

TestImages::TestImages(const Shape& shape)
    : shape_(shape),
      image_({.path = "/images/child.vhdx", .seed = shape.seed}),
      parent_({.path = "/images/base.vhdx", .seed = shape.seed + 1}) {
  CreateOptions options;
  options.size_bytes = shape.disk_bytes;
  options.type = shape.type;
  options.block_size_bytes = shape.block_bytes;
  options.logical_sector_bytes = shape.sector_bytes;
  if (shape.type == Type::kDifferencing) {
    MakeParent();
    options.parent.relative_path = "base.vhdx";
    options.parent.linkage = parent_linkage_;
  }
  CHECK_OK(Await(Create(image_, options), image_));
}

void TestImages::MakeParent() {
  CreateOptions options;
  options.size_bytes = ParentBytes(shape_);
  options.block_size_bytes = 1 << 20;
  options.logical_sector_bytes = shape_.sector_bytes;
  CHECK_OK(Await(Create(parent_, options), parent_));
  auto disk = Await(Open(std::make_unique<BorrowedStorage>(parent_), OpenOptions()), parent_);
  CHECK_OK(disk.status());
  std::vector<uint8_t> run(kRunSectors * 512);
  for (uint64_t sector = 0; sector * 512 < options.size_bytes; sector += 3 * kRunSectors) {
    for (uint64_t i = 0; i < kRunSectors; ++i) {
      ParentSector(shape_, sector + i, std::span(run).subspan(i * 512, 512));
    }
    CHECK_OK(Await(WriteAt(**disk, sector * 512, std::span<const uint8_t>(run)), parent_));
  }
  CHECK_OK(Await((*disk)->Close(), parent_));
  parent_linkage_ = *(*disk)->linkage();
}

Task<absl::StatusOr<std::unique_ptr<Disk>>> TestImages::OpenParent() {
  OpenOptions options;
  options.read_only = true;
  return Open(std::make_unique<BorrowedStorage>(parent_), std::move(options));
}

absl::StatusOr<std::unique_ptr<Disk>> TestImages::TryOpenImage(
    Storage& storage, bool read_only, std::vector<MemoryStorage*> storages) {
  OpenOptions options;
  options.read_only = read_only;
  options.cache_bytes = shape_.cache_bytes;
  options.open_parent = parent_opener();
  return Await(Open(std::make_unique<BorrowedStorage>(storage), std::move(options)),
               std::span<MemoryStorage* const>(storages));
}

std::unique_ptr<Disk> TestImages::OpenImage(bool read_only) {
  auto disk = TryOpenImage(image_, read_only, both());
  if (!disk.ok()) fprintf(stderr, "%s\n", disk.status().ToString().c_str());
  CHECK_OK(disk.status());
  return *std::move(disk);
}

Task<absl::Status> Settle(Disk& disk) {
  co_await disk.Settle();
  co_return absl::OkStatus();
}

SectorHistory TestImages::NewHistory() const {
  SectorHistory::Initial initial;
  if (shape_.type == Type::kDifferencing) {
    initial = [shape = shape_](uint64_t sector, std::span<uint8_t> bytes) {
      ParentSector(shape, sector, bytes);
    };
  }
  return SectorHistory(shape_.disk_bytes / 512, initial);
}

}  // namespace bothy::disk::vhdx
