#include "disk/tools/copy_disk.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "disk/testing/fake_disk.h"
#include "support/unique_fd.h"

namespace bothy::disk::tools {
namespace {

absl::Status Copy(FakeDisk& from, FakeDisk& to, const CopyOptions& options) {
  std::optional<absl::Status> copied;
  Start(CopyDisk(from, to, options), [&](const absl::Status& status) { copied = status; });
  return *copied;
}
std::vector<uint8_t> Contents(FakeDisk& disk) {
  std::vector<uint8_t> bytes(disk.geometry().size_bytes);
  disk.storage().Peek(0, bytes);
  return bytes;
}

// A file system's blocks may be smaller than the image's sectors, and so its holes. (Here the
// former are pages, and the latter larger.)
TEST(CopyDiskTest, ASectorThatIsAHoleInPartIsCopied) {
  constexpr uint32_t kSector = 16384;
  constexpr uint64_t kBytes = uint64_t{8} * kSector;
  const UniqueFd file(::memfd_create("image", MFD_CLOEXEC));
  ASSERT_TRUE(file);
  ASSERT_EQ(::ftruncate(file.get(), kBytes), 0);
  // Of each other sector the last page.
  const std::vector<uint8_t> page(4096, 0xAB);
  std::vector<uint8_t> contents(kBytes);
  for (uint64_t sector = 0; sector < kBytes / kSector; sector += 2) {
    const uint64_t at = (sector + 1) * kSector - page.size();
    ASSERT_EQ(::pwrite(file.get(), page.data(), page.size(), static_cast<off_t>(at)),
              static_cast<ssize_t>(page.size()));
    std::copy(page.begin(), page.end(), contents.begin() + static_cast<ptrdiff_t>(at));
  }
  const Geometry geometry = {.size_bytes = kBytes, .logical_sector_bytes = kSector};
  FakeDisk from({.geometry = geometry, .immediate = true});
  from.storage().Poke(0, contents);
  from.map_extent = [&](uint64_t offset) {
    return Extent{.kind = Extent::Kind::kFile,
                  .length = kBytes - offset,
                  .fd = file.get(),
                  .file_offset = offset};
  };
  FakeDisk to({.geometry = geometry, .immediate = true});

  const absl::Status status = Copy(from, to, {});
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(Contents(to), contents);
}

// Neither the source's end nor its runs are where the target's larger sectors are.
TEST(CopyDiskTest, LargerSectorsAreFilledUpWithZeros) {
  constexpr uint64_t kBytes = (3 << 20) + 5 * 512;
  FakeDisk from({.geometry = {.size_bytes = kBytes}, .immediate = true});
  std::vector<uint8_t> contents(kBytes);
  for (uint64_t sector = 0; sector < kBytes / 512; ++sector) {
    if (sector % 7 < 3 || sector * 512 > 3 << 20) contents[sector * 512] = 1;
  }
  from.storage().Poke(0, contents);
  // In runs of a sector.
  from.map_extent = [&](uint64_t offset) {
    return Extent{.kind = contents[offset] == 0 ? Extent::Kind::kZero : Extent::Kind::kOpaque,
                  .length = 512};
  };
  for (const uint64_t size : {(3 << 20) + 4096, 4 << 20}) {
    for (const auto target : {CopyOptions::Target::kZero, CopyOptions::Target::kContents}) {
      const Geometry geometry = {.size_bytes = size, .logical_sector_bytes = 4096};
      FakeDisk to({.geometry = geometry, .immediate = true});
      if (target == CopyOptions::Target::kContents) {
        to.storage().Poke(0, std::vector<uint8_t>(size, 9));
      }
      uint64_t last_done = 0;
      uint64_t last_total = 0;
      CopyOptions options;
      options.target = target;
      options.progress = [&](uint64_t done, uint64_t total) {
        last_done = done;
        last_total = total;
      };
      const absl::Status status = Copy(from, to, options);
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_EQ(last_done, last_total);
      contents.resize(size);
      EXPECT_TRUE(Contents(to) == contents);
      contents.resize(kBytes);
    }
  }
}

TEST(CopyDiskTest, WhatTheTargetHasBehindTheSourceBecomesZero) {
  FakeDisk from({.geometry = {.size_bytes = 1 << 20}, .immediate = true});
  from.storage().Poke(0, std::vector<uint8_t>(1 << 20, 1));
  FakeDisk to({.geometry = {.size_bytes = 5 << 20}, .immediate = true});
  to.storage().Poke(512 << 10, std::vector<uint8_t>(2 << 20, 9));
  CopyOptions options;
  options.target = CopyOptions::Target::kContents;
  ASSERT_TRUE(Copy(from, to, options).ok());
  std::vector<uint8_t> wanted(1 << 20, 1);
  wanted.resize(5 << 20);
  EXPECT_TRUE(Contents(to) == wanted);
}

}  // namespace
}  // namespace bothy::disk::tools
