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

  std::optional<absl::Status> copied;
  Start(CopyDisk(from, to, {}), [&](const absl::Status& status) { copied = status; });
  ASSERT_TRUE(copied.has_value());
  EXPECT_TRUE(copied->ok()) << *copied;
  std::vector<uint8_t> there(kBytes);
  to.storage().Peek(0, there);
  EXPECT_EQ(there, contents);
}

}  // namespace
}  // namespace bothy::disk::tools
