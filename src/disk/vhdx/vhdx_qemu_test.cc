// The other implementation: images written here are good and the same there, and the other way
// round. Where qemu-img isn't installed these are skipped.
#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "disk/testing/sparse_file.h"
#include "disk/vhdx/vhdx.h"
#include "support/testing/test_folder.h"

namespace bothy::disk::vhdx {
namespace {

constexpr uint64_t kMiB = 1 << 20;

class VhdxQemuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string output;
    if (RunCommand("qemu-img --version", output) != 0) GTEST_SKIP() << "no qemu-img";
  }
  // Runs it and expects success.
  static void Expect(const std::string& command) {
    std::string output;
    EXPECT_EQ(RunCommand(command, output), 0) << command << "\n" << output;
  }

  // Writes of random places and sizes, to the disk and to `raw`.
  static void WriteRandomly(Disk& disk, MemoryStorage& storage, MemoryStorage& raw) {
    std::mt19937_64 random(7);
    const uint64_t size = disk.geometry().size_bytes;
    raw.Truncate(size);
    for (int i = 0; i < 60; ++i) {
      const uint64_t length = (random() % 256 + 1) * 4096;
      const uint64_t offset = random() % ((size - length) / 4096 + 1) * 4096;
      std::vector<uint8_t> bytes(length);
      for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
      ASSERT_TRUE(Await(WriteAt(disk, offset, std::span<const uint8_t>(bytes)), storage).ok());
      raw.Poke(offset, bytes);
      if (i % 10 == 0) {
        ASSERT_TRUE(Await(Flush(disk), storage).ok());
      }
      if (i % 7 == 0) {
        const uint64_t zeroed = size / 64 * (random() % 60) / 4096 * 4096;
        ASSERT_TRUE(Await(WriteZeroes(disk, zeroed, 3 * kMiB + 4096), storage).ok());
        raw.Poke(zeroed, std::vector<uint8_t>(3 * kMiB + 4096));
      }
    }
  }

  TestFolder folder_;
};

TEST_F(VhdxQemuTest, ReadsWhatIsWrittenHere) {
  for (const Type type : {Type::kFixed, Type::kDynamic}) {
    for (const uint32_t block : {1U << 20, 32U << 20, 256U << 20}) {
      SCOPED_TRACE(absl::StrCat("fixed ", type == Type::kFixed, " block ", block));
      MemoryStorage raw;
      auto owned = std::make_unique<MemoryStorage>(MemoryStorage::Options{.seed = block});
      MemoryStorage& storage = *owned;
      CreateOptions create;
      create.type = type;
      create.block_size_bytes = block;
      create.size_bytes = 300 * kMiB + 4096;
      ASSERT_TRUE(Await(Create(storage, create), storage).ok());
      auto disk = Await(Open(std::move(owned), {}), storage);
      ASSERT_TRUE(disk.ok()) << disk.status();
      ASSERT_NO_FATAL_FAILURE(WriteRandomly(**disk, storage, raw));
      ASSERT_TRUE(Await((*disk)->Close(), storage).ok());
      SaveSparse(storage, folder_ / "a.vhdx");
      SaveSparse(raw, folder_ / "a.raw");
      Expect("qemu-img check -f vhdx " + (folder_ / "a.vhdx"));
      Expect("qemu-img compare -f vhdx -F raw " + (folder_ / "a.vhdx ") + (folder_ / "a.raw"));
    }
  }
}

}  // namespace
}  // namespace bothy::disk::vhdx
