// The other implementation: images written here are good and the same there, and the other way
// round. Where qemu-img isn't installed these are skipped.
#include <gtest/gtest.h>

#include <cstring>
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

// Compares the image with what qemu-img makes of it in raw form.
void ExpectSameAsRaw(Disk& disk, MemoryStorage& storage, const std::string& raw) {
  std::ifstream file(raw, std::ios::binary);
  std::vector<uint8_t> here(1 << 20);
  std::vector<char> there(1 << 20);
  for (uint64_t at = 0; at < disk.geometry().size_bytes; at += here.size()) {
    const size_t part = std::min<uint64_t>(here.size(), disk.geometry().size_bytes - at);
    ASSERT_TRUE(Await(ReadAt(disk, at, std::span(here).first(part)), storage).ok());
    ASSERT_TRUE(file.read(there.data(), static_cast<std::streamsize>(part)));
    ASSERT_EQ(std::memcmp(here.data(), there.data(), part), 0) << at;
  }
}

TEST_F(VhdxQemuTest, WhatQemuWritesReadsTheSameHere) {
  const std::string image = folder_ / "q.vhdx";
  const std::string raw = folder_ / "q.raw";
  for (const char* subformat : {"fixed", "dynamic"}) {
    for (const char* block : {"1M", "64M"}) {
      SCOPED_TRACE(absl::StrCat(subformat, " ", block));
      Expect(absl::StrCat("qemu-img create -q -f vhdx -o subformat=", subformat,
                          ",block_size=", block, " ", image, " 130M"));
      Expect(absl::StrCat("qemu-io -f vhdx -c 'write -P 1 0 64k' -c 'write -P 2 65M 3M'",
                          " -c 'write -P 3 1000k 100k' -c 'write -z 66M 64k' ", image));
      Expect(absl::StrCat("qemu-img convert -f vhdx -O raw ", image, " ", raw));
      auto owned = std::make_unique<MemoryStorage>();
      MemoryStorage& storage = *owned;
      LoadSparse(image, storage);
      const auto report = Await(Check(storage), storage);
      ASSERT_TRUE(report.ok());
      EXPECT_TRUE(report->sound());
      auto disk = Await(Open(std::move(owned), {}), storage);
      ASSERT_TRUE(disk.ok()) << disk.status();
      ExpectSameAsRaw(**disk, storage, raw);
      // And goes on being an image.
      const std::vector<uint8_t> bytes(8192, 9);
      ASSERT_TRUE(
          Await(WriteAt(**disk, 100 * kMiB, std::span<const uint8_t>(bytes)), storage).ok());
      ASSERT_TRUE(Await((*disk)->Close(), storage).ok());
      SaveSparse(storage, image);
      Expect("qemu-img check -f vhdx " + image);
      Expect(
          absl::StrCat("qemu-io -r -f vhdx -c 'read -P 9 100M 8k' -c 'read -P 2 67M 1M' ", image));
    }
  }
}

TEST_F(VhdxQemuTest, OpensWhatAKilledQemuLeaves) {
  const std::string image = folder_ / "q.vhdx";
  Expect(absl::StrCat("qemu-img create -q -f vhdx -o block_size=1M ", image, " 20M"));
  std::string output;
  // It dies with its log in use.
  RunCommand(absl::StrCat("qemu-io -f vhdx -c 'write -P 7 0 64k' -c 'write -P 8 5M 1M' -c flush",
                          " -c 'sigraise 9' ", image),
             output);
  for (const bool read_only : {true, false}) {
    auto owned = std::make_unique<MemoryStorage>();
    MemoryStorage& storage = *owned;
    LoadSparse(image, storage);
    OpenOptions options;
    options.read_only = read_only;
    auto disk = Await(Open(std::move(owned), options), storage);
    ASSERT_TRUE(disk.ok()) << disk.status();
    std::vector<uint8_t> bytes(kMiB);
    ASSERT_TRUE(Await(ReadAt(**disk, 5 * kMiB, std::span<uint8_t>(bytes)), storage).ok());
    EXPECT_EQ(bytes, std::vector<uint8_t>(kMiB, 8));
    ASSERT_TRUE(Await((*disk)->Close(), storage).ok());
  }
}

TEST_F(VhdxQemuTest, QemuReplaysTheLogThatIsWrittenHere) {
  auto owned = std::make_unique<MemoryStorage>();
  MemoryStorage& storage = *owned;
  CreateOptions create;
  create.size_bytes = 20 * kMiB;
  create.block_size_bytes = kMiB;
  ASSERT_TRUE(Await(Create(storage, create), storage).ok());
  auto disk = Await(Open(std::move(owned), {}), storage);
  ASSERT_TRUE(disk.ok());
  const std::vector<uint8_t> bytes(kMiB, 6);
  for (const uint64_t block : {3, 11}) {
    ASSERT_TRUE(
        Await(WriteAt(**disk, block * kMiB, std::span<const uint8_t>(bytes)), storage).ok());
  }
  // The BAT's page doesn't get to its place: the log alone has it.
  storage.on_request = [](const Request& request) {
    const bool table = request.operation == Operation::kWrite && request.offset == 4 * kMiB;
    return table ? absl::ResourceExhaustedError("full") : absl::OkStatus();
  };
  ASSERT_TRUE(Await(Flush(**disk), storage).ok());
  while (storage.Pump()) {
  }
  SaveSparse(storage, folder_ / "log.vhdx");
  storage.on_request = nullptr;
  ASSERT_TRUE(Await((*disk)->Close(), storage).ok());
  SaveSparse(storage, folder_ / "closed.vhdx");
  Expect("qemu-img check -r all -f vhdx " + (folder_ / "log.vhdx"));
  Expect("qemu-img compare -f vhdx -F vhdx " + (folder_ / "log.vhdx ") + (folder_ / "closed.vhdx"));
  Expect("qemu-io -r -f vhdx -c 'read -P 6 11M 1M' " + (folder_ / "log.vhdx"));
}

// QEMU has no differencing VHDX; libvhdi reads what there is to say about one.
TEST_F(VhdxQemuTest, LibvhdiReadsADifferencingImage) {
  std::string output;
  if (RunCommand("vhdiinfo -V", output) != 0) GTEST_SKIP() << "no vhdiinfo";
  MemoryStorage storage;
  CreateOptions create;
  create.size_bytes = 20 * kMiB;
  create.type = Type::kDifferencing;
  create.parent.relative_path = "base.vhdx";
  create.parent.absolute_path = "/images/base.vhdx";
  create.parent.linkage = Guid::Random();
  create.disk_id = Guid::Random();
  ASSERT_TRUE(Await(Create(storage, create), storage).ok());
  SaveSparse(storage, folder_ / "child.vhdx");
  ASSERT_EQ(RunCommand("vhdiinfo " + (folder_ / "child.vhdx"), output), 0) << output;
  EXPECT_NE(output.find("Differential"), std::string::npos) << output;
  EXPECT_NE(output.find(create.parent.linkage.ToString()), std::string::npos) << output;
  EXPECT_NE(output.find("base.vhdx"), std::string::npos) << output;
}

}  // namespace
}  // namespace bothy::disk::vhdx
