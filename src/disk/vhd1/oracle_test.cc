// The other implementations: images written here are good and the same there, and the other way
// round. Skipped where they aren't installed.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/borrowed_storage.h"
#include "disk/testing/sparse_file.h"
#include "disk/vhd1/vhd1.h"
#include "support/testing/test_folder.h"

namespace bothy::disk::vhd1 {
namespace {

constexpr uint64_t kMiB = 1 << 20;

void Randomize(std::vector<uint8_t>& bytes, std::mt19937_64& random) {
  for (size_t at = 0; at < bytes.size(); at += 8) {
    const uint64_t value = random();
    std::memcpy(bytes.data() + at, &value, std::min<size_t>(8, bytes.size() - at));
  }
}

class VhdOracleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string output;
    if (RunCommand("qemu-img --version && vhdiinfo -V", output) != 0) {
      GTEST_SKIP() << "no qemu-img or no vhdiinfo";
    }
  }
  static std::string Expect(const std::string& command) {
    std::string output;
    EXPECT_EQ(RunCommand(command, output), 0) << command << "\n" << output;
    return output;
  }
  // The same contents and the same size; qemu-img's check doesn't know the format.
  static void ExpectIdentical(const std::string& vhd, const std::string& raw) {
    EXPECT_EQ(Expect("qemu-img compare -f vpc -F raw " + vhd + " " + raw),
              "Images are identical.\n");
  }
  // Writes, zeroes and discards at random places of the disk; `raw` gets the same.
  static void WriteRandomly(Disk& disk, std::vector<MemoryStorage*> storages, MemoryStorage& raw,
                            uint64_t seed) {
    std::mt19937_64 random(seed);
    const uint64_t size = disk.geometry().size_bytes;
    raw.Truncate(size);
    for (int i = 0; i < 40; ++i) {
      const uint64_t length = std::min((random() % 300 + 1) * 512, size);
      const uint64_t offset = random() % ((size - length) / 512 + 1) * 512;
      if (i % 9 == 0) {
        ASSERT_TRUE(Await(WriteZeroes(disk, offset, length), storages).ok());
        raw.Poke(offset, std::vector<uint8_t>(length));
        continue;
      }
      std::vector<uint8_t> bytes(length);
      Randomize(bytes, random);
      ASSERT_TRUE(Await(WriteAt(disk, offset, std::span<const uint8_t>(bytes)), storages).ok());
      raw.Poke(offset, bytes);
      if (i % 10 == 0) {
        ASSERT_TRUE(Await(Flush(disk), storages).ok());
      }
    }
  }
  static void ExpectSame(Disk& disk, std::vector<MemoryStorage*> storages,
                         const MemoryStorage& raw) {
    ASSERT_EQ(disk.geometry().size_bytes, raw.size());
    std::vector<uint8_t> ours(kMiB);
    std::vector<uint8_t> theirs(kMiB);
    for (uint64_t at = 0; at < raw.size(); at += kMiB) {
      const uint64_t part = std::min(kMiB, raw.size() - at);
      ASSERT_TRUE(Await(ReadAt(disk, at, std::span(ours).first(part)), storages).ok());
      raw.Peek(at, std::span(theirs).first(part));
      ASSERT_TRUE(
          std::equal(ours.begin(), ours.begin() + static_cast<ptrdiff_t>(part), theirs.begin()))
          << "at " << at;
    }
  }

  TestFolder folder_;
};

TEST_F(VhdOracleTest, QemuReadsWhatIsWrittenHere) {
  // Sizes that no geometry amounts to; a table whose end isn't a sector's.
  for (const uint64_t size : {30 * kMiB, 31 * kMiB + 512, 512 * uint64_t{1}, 700 * kMiB + 1536}) {
    for (const Type type : {Type::kFixed, Type::kDynamic}) {
      for (const uint32_t block : {kMinBlockBytes, 16U << 20}) {
        SCOPED_TRACE(absl::StrCat("size ", size, type == Type::kFixed ? " fixed" : " dynamic",
                                  " block ", block));
        MemoryStorage storage;
        MemoryStorage raw;
        const CreateOptions options = {.size_bytes = size, .type = type, .block_size_bytes = block};
        ASSERT_TRUE(Await(Create(storage, options), storage).ok());
        auto disk = Await(Open(std::make_unique<BorrowedStorage>(storage), OpenOptions()), storage);
        ASSERT_TRUE(disk.ok()) << disk.status();
        ASSERT_NO_FATAL_FAILURE(WriteRandomly(**disk, {&storage}, raw, size + block));
        ASSERT_TRUE(Await((*disk)->Close(), storage).ok());
        const std::string image = folder_ / "a.vhd";
        SaveSparse(storage, image);
        SaveSparse(raw, folder_ / "a.raw");
        ExpectIdentical(image, folder_ / "a.raw");
        const std::string info = Expect("vhdiinfo " + image);
        EXPECT_NE(info.find(absl::StrCat("(", size, " bytes)")), std::string::npos) << info;
        const auto report = Await(Check(storage), storage);
        ASSERT_TRUE(report.ok());
        EXPECT_TRUE(report->sound());
        Expect("rm " + image + " " + (folder_ / "a.raw"));
        if (type == Type::kFixed) break;
      }
    }
  }
}

TEST_F(VhdOracleTest, ReadsWhatQemuWrites) {
  for (const char* options : {"subformat=dynamic", "subformat=dynamic,force_size=on",
                              "subformat=fixed", "subformat=fixed,force_size=on"}) {
    SCOPED_TRACE(options);
    MemoryStorage raw;
    raw.Truncate(37 * kMiB + 2560);
    std::mt19937_64 random(3);
    for (int i = 0; i < 20; ++i) {
      std::vector<uint8_t> bytes(random() % 200'000);
      Randomize(bytes, random);
      raw.Poke(random() % (raw.size() - bytes.size()), bytes);
    }
    SaveSparse(raw, folder_ / "a.raw");
    Expect(absl::StrCat("qemu-img convert -f raw -O vpc -o ", options, " ", folder_ / "a.raw", " ",
                        folder_ / "a.vhd"));
    // Without force_size the size is rounded up to what a geometry can express.
    Expect("qemu-img convert -f vpc -O raw " + (folder_ / "a.vhd") + " " + (folder_ / "b.raw"));
    MemoryStorage storage;
    MemoryStorage back;
    LoadSparse(folder_ / "a.vhd", storage);
    LoadSparse(folder_ / "b.raw", back);
    auto disk = Await(Open(std::make_unique<BorrowedStorage>(storage), OpenOptions()), storage);
    ASSERT_TRUE(disk.ok()) << disk.status();
    ASSERT_NO_FATAL_FAILURE(ExpectSame(**disk, {&storage}, back));
    // And it stays theirs when it was written here.
    ASSERT_NO_FATAL_FAILURE(WriteRandomly(**disk, {&storage}, back, 5));
    ASSERT_TRUE(Await((*disk)->Close(), storage).ok());
    Expect("rm " + (folder_ / "a.vhd") + " " + (folder_ / "b.raw"));
    SaveSparse(storage, folder_ / "a.vhd");
    SaveSparse(back, folder_ / "b.raw");
    ExpectIdentical(folder_ / "a.vhd", folder_ / "b.raw");
    Expect("rm " + (folder_ / "a.vhd") + " " + (folder_ / "b.raw") + " " + (folder_ / "a.raw"));
  }
}

TEST_F(VhdOracleTest, VhdiinfoKnowsParentAndChild) {
  MemoryStorage parent({.path = "base.vhd", .immediate = true});
  MemoryStorage child({.path = "child.vhd", .immediate = true});
  std::vector<MemoryStorage*> both = {&child, &parent};
  const CreateOptions base = {.size_bytes = 64 * kMiB};
  ASSERT_TRUE(Await(Create(parent, base), parent).ok());
  auto opened = Await(Open(std::make_unique<BorrowedStorage>(parent), OpenOptions()), parent);
  ASSERT_TRUE(opened.ok());
  MemoryStorage raw;
  ASSERT_NO_FATAL_FAILURE(WriteRandomly(**opened, {&parent}, raw, 1));
  ASSERT_TRUE(Await((*opened)->Close(), parent).ok());
  const Guid id = *(*opened)->linkage();

  CreateOptions options = {.size_bytes = 64 * kMiB, .type = Type::kDifferencing};
  options.parent = {.relative_path = "base.vhd",
                    .absolute_path = folder_ / "base.vhd",
                    .linkage = id,
                    .modified_time = 1'700'000'000};
  ASSERT_TRUE(Await(Create(child, options), both).ok());
  OpenOptions open;
  open.open_parent = [&parent](const ParentReference& reference) {
    EXPECT_EQ(reference.candidate_paths.front(), "./base.vhd");
    OpenOptions parent_options;
    parent_options.read_only = true;
    return Open(std::make_unique<BorrowedStorage>(parent), std::move(parent_options));
  };
  auto disk = Await(Open(std::make_unique<BorrowedStorage>(child), std::move(open)), both);
  ASSERT_TRUE(disk.ok()) << disk.status();
  ASSERT_NO_FATAL_FAILURE(WriteRandomly(**disk, both, raw, 2));
  ASSERT_NO_FATAL_FAILURE(ExpectSame(**disk, both, raw));
  ASSERT_TRUE(Await((*disk)->Close(), both).ok());
  SaveSparse(parent, folder_ / "base.vhd");
  SaveSparse(child, folder_ / "child.vhd");
  const std::string info = Expect("vhdiinfo " + (folder_ / "child.vhd"));
  EXPECT_NE(info.find("Differential"), std::string::npos) << info;
  EXPECT_NE(info.find(id.ToString()), std::string::npos) << info;
  EXPECT_NE(info.find("base.vhd"), std::string::npos) << info;
}

}  // namespace
}  // namespace bothy::disk::vhd1
