// What a VHDX disk does, over a storage that completes requests in a random order.
#include "disk/vhdx/vhdx_disk.h"

#include <gtest/gtest.h>

#include "disk/testing/memory_storage.h"
#include "disk/vhdx/vhdx.h"

namespace bothy::disk::vhdx {
namespace {

TEST(VhdxDiskTest, DynamicReadsWhatWasWritten) {
  auto storage = std::make_unique<MemoryStorage>();
  MemoryStorage* memory = storage.get();
  CreateOptions create;
  create.size_bytes = uint64_t{1} << 30;
  ASSERT_TRUE(Await(Create(*storage, create), *memory).ok());
  auto disk = Await(Open(std::move(storage), {}), *memory);
  ASSERT_TRUE(disk.ok()) << disk.status();
  std::vector<uint8_t> data(8192, 0xA5);
  ASSERT_TRUE(Await(WriteAt(**disk, 12288, std::span<const uint8_t>(data)), *memory).ok());
  std::vector<uint8_t> back(16384);
  ASSERT_TRUE(Await(ReadAt(**disk, 8192, std::span<uint8_t>(back)), *memory).ok());
  EXPECT_EQ(back[4095], 0);
  EXPECT_EQ(back[4096], 0xA5);
  EXPECT_EQ(back[12287], 0xA5);
  EXPECT_EQ(back[12288], 0);
  ASSERT_TRUE(Await(Flush(**disk), *memory).ok());
  ASSERT_TRUE(Await((*disk)->Close(), *memory).ok());
}

}  // namespace
}  // namespace bothy::disk::vhdx
