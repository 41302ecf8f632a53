// Damage that Check finds and Repair puts right; resizing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/borrowed_storage.h"
#include "disk/testing/memory_storage.h"
#include "disk/testing/random_load.h"
#include "disk/vhd1/vhd1.h"
#include "support/endian.h"

namespace bothy::disk::vhd1 {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kDiskBytes = 8 << 20;
constexpr uint64_t kTable = 1536;

class RepairTest : public ::testing::Test {
 protected:
  void Make(Type type = Type::kDynamic) {
    const CreateOptions options = {
        .size_bytes = kDiskBytes, .type = type, .block_size_bytes = kMinBlockBytes};
    ASSERT_TRUE(Await(Create(storage_, options), storage_).ok());
    std::unique_ptr<Disk> disk = OpenIt();
    RandomLoad load(*disk, history_, {&storage_}, {.seed = 5});
    ASSERT_EQ(load.Run(300), "");
    ASSERT_TRUE(Await(disk->Close(), storage_).ok());
  }
  std::unique_ptr<Disk> OpenIt() {
    auto disk = Await(Open(std::make_unique<BorrowedStorage>(storage_), OpenOptions()), storage_);
    CHECK_OK(disk.status());
    return *std::move(disk);
  }
  CheckReport CheckIt() {
    auto report = Await(Check(storage_), storage_);
    CHECK_OK(report.status());
    return *std::move(report);
  }
  void RepairIt() {
    const auto report = Await(Repair(storage_), storage_);
    ASSERT_TRUE(report.ok()) << report.status();
    const CheckReport after = CheckIt();
    EXPECT_TRUE(after.clean()) << after.problems.front().field << after.problems.front().message;
  }
  void ExpectIntact() {
    std::unique_ptr<Disk> disk = OpenIt();
    RandomLoad load(*disk, history_, {&storage_}, {});
    EXPECT_EQ(load.Verify(), "");
    EXPECT_TRUE(Await(disk->Close(), storage_).ok());
  }
  uint32_t Entry(uint32_t block) {
    std::array<uint8_t, 4> bytes;
    storage_.Peek(kTable + block * 4, bytes);
    return LoadBe<uint32_t>(bytes.data());
  }
  void SetEntry(uint32_t block, uint32_t location) {
    std::array<uint8_t, 4> bytes;
    StoreBe(bytes.data(), location);
    storage_.Poke(kTable + block * 4, bytes);
  }
  uint32_t FirstAllocated() {
    uint32_t block = 0;
    while (Entry(block) == 0xFFFFFFFF) ++block;
    return block;
  }

  MemoryStorage storage_{{.path = "a.vhd", .immediate = true}};
  SectorHistory history_{kDiskBytes / 512};
};

TEST_F(RepairTest, WhatIsCleanStaysAsItIs) {
  Make();
  RepairIt();
  const uint64_t size = storage_.size();
  RepairIt();
  EXPECT_EQ(storage_.size(), size);
  ExpectIntact();
}

TEST_F(RepairTest, RestoresTheFooter) {
  Make();
  RepairIt();
  storage_.Truncate(storage_.size() - 512);
  const CheckReport report = CheckIt();
  ASSERT_EQ(report.problems.size(), 1U);
  EXPECT_EQ(report.worst, Severity::kWarning);
  EXPECT_TRUE(report.sound());
  RepairIt();
  ExpectIntact();
}

TEST_F(RepairTest, RestoresTheFootersCopy) {
  Make();
  storage_.Poke(0, std::vector<uint8_t>(512));
  EXPECT_EQ(CheckIt().problems.front().field, "FooterCopy");
  RepairIt();
  ExpectIntact();
}

TEST_F(RepairTest, RestoresTheHeadersChecksum) {
  Make();
  storage_.Poke(512 + 1000, std::vector<uint8_t>(1, 7));
  EXPECT_EQ(CheckIt().problems.front().field, "DynamicHeader.Checksum");
  RepairIt();
  ExpectIntact();
}

TEST_F(RepairTest, GivesSharedBlocksTheirOwn) {
  Make();
  const uint32_t block = FirstAllocated();
  uint32_t other = block + 1;
  while (Entry(other) == 0xFFFFFFFF) ++other;
  SetEntry(other, Entry(block));
  CheckReport report = CheckIt();
  EXPECT_EQ(report.worst, Severity::kError);
  EXPECT_FALSE(report.sound());
  const auto repaired = Await(Repair(storage_), storage_);
  ASSERT_TRUE(repaired.ok());
  EXPECT_TRUE(CheckIt().sound());
  EXPECT_NE(Entry(block), Entry(other));
  // What the two had in common both have now.
  std::unique_ptr<Disk> disk = OpenIt();
  std::vector<uint8_t> a(kMinBlockBytes);
  std::vector<uint8_t> b(kMinBlockBytes);
  ASSERT_TRUE(Await(ReadAt(*disk, uint64_t{block} * kMinBlockBytes, a), storage_).ok());
  ASSERT_TRUE(Await(ReadAt(*disk, uint64_t{other} * kMinBlockBytes, b), storage_).ok());
  EXPECT_EQ(a, b);
}

TEST_F(RepairTest, LetsBlocksOutsideTheFileReadAsZero) {
  Make();
  SetEntry(3, 0x7000'0000);
  const CheckReport report = CheckIt();
  EXPECT_FALSE(report.sound());
  EXPECT_EQ(report.problems.front().field, "BAT[3]");
  EXPECT_EQ(report.problems.front().offset, kTable + 12);
  const auto repaired = Await(Repair(storage_), storage_);
  ASSERT_TRUE(repaired.ok());
  EXPECT_EQ(Entry(3), 0xFFFFFFFF);
  EXPECT_TRUE(CheckIt().sound());
}

TEST_F(RepairTest, KeepsWhatIsLeftOfABlockThatTheFilesEndCutsOff) {
  for (const uint64_t lost : {4096U, 1024U, kMinBlockBytes - 488}) {
    storage_.Truncate(0);
    history_ = SectorHistory(kDiskBytes / 512);
    Make();
    RepairIt();
    uint32_t last = FirstAllocated();
    for (uint32_t block = last; block < kDiskBytes / kMinBlockBytes; ++block) {
      if (Entry(block) != 0xFFFFFFFF && Entry(block) > Entry(last)) last = block;
    }
    std::vector<uint8_t> whole(kDiskBytes);
    ASSERT_TRUE(Await(ReadAt(*OpenIt(), 0, whole), storage_).ok());
    // The footer, and the end of a block.
    storage_.Truncate(storage_.size() - lost);
    EXPECT_FALSE(CheckIt().sound());
    const uint32_t location = Entry(last);
    RepairIt();
    EXPECT_EQ(Entry(last), location);
    std::vector<uint8_t> left(kDiskBytes);
    ASSERT_TRUE(Await(ReadAt(*OpenIt(), 0, left), storage_).ok());
    const uint64_t block_end = uint64_t{last + 1} * kMinBlockBytes;
    std::fill_n(whole.begin() + static_cast<ptrdiff_t>(block_end - (lost - 512)), lost - 512, 0);
    EXPECT_TRUE(left == whole) << lost;
  }
}

TEST_F(RepairTest, CompletesABlockThatReachesPastAFooterThatIsGood) {
  Make();
  RepairIt();
  const uint32_t block = FirstAllocated();
  uint64_t last = 0;
  for (uint32_t other = 0; other < kDiskBytes / kMinBlockBytes; ++other) {
    if (Entry(other) != 0xFFFFFFFF) last = std::max<uint64_t>(last, Entry(other));
  }
  // Only there is a good one.
  storage_.Poke(0, std::vector<uint8_t>(512));
  SetEntry(block, static_cast<uint32_t>(last + 8));
  const auto repaired = Await(Repair(storage_), storage_);
  ASSERT_TRUE(repaired.ok()) << repaired.status();
  EXPECT_TRUE(CheckIt().sound());
  std::vector<uint8_t> bytes(512);
  ASSERT_TRUE(
      Await(ReadAt(*OpenIt(), uint64_t{block + 1} * kMinBlockBytes - 512, bytes), storage_).ok());
  EXPECT_TRUE(std::ranges::all_of(bytes, [](uint8_t byte) { return byte == 0; }));
}

TEST_F(RepairTest, GivesLeakedRoomBack) {
  Make();
  const uint32_t block = FirstAllocated();
  SetEntry(block, 0xFFFFFFFF);
  history_.Zero(uint64_t{block} * kMinBlockBytes / 512, kMinBlockBytes / 512);
  const uint64_t size = storage_.size();
  const CheckReport report = CheckIt();
  EXPECT_EQ(report.worst, Severity::kNote);
  EXPECT_GE(report.leaked_bytes, kMinBlockBytes);
  RepairIt();
  EXPECT_LT(storage_.size(), size);
  ExpectIntact();
}

TEST_F(RepairTest, FindsTheFooterOfAFixedImage) {
  Make(Type::kFixed);
  storage_.Truncate(storage_.size() + 3 * 512 + 1);
  EXPECT_FALSE(CheckIt().sound());
  RepairIt();
  ExpectIntact();
}

TEST_F(RepairTest, CannotBringBackWhatAFixedImageLost) {
  Make(Type::kFixed);
  std::array<uint8_t, 512> footer;
  storage_.Peek(kDiskBytes, footer);
  storage_.Truncate(kDiskBytes / 2);
  storage_.Poke(kDiskBytes / 2, footer);
  const auto repaired = Await(Repair(storage_), storage_);
  EXPECT_EQ(repaired.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(repaired.status().message()), HasSubstr("Footer.CurrentSize"));
}

class ResizeTest : public RepairTest {
 protected:
  absl::Status ResizeTo(uint64_t size, bool discard_data = false) {
    const ResizeOptions options = {.size_bytes = size, .discard_data = discard_data};
    return Await(Resize(storage_, options), storage_);
  }
  // The old contents, then zeros.
  void ExpectGrown(uint64_t size) {
    std::unique_ptr<Disk> disk = OpenIt();
    ASSERT_EQ(disk->geometry().size_bytes, size);
    RandomLoad load(*disk, history_, {&storage_}, {});
    EXPECT_EQ(load.Verify(), "");
    std::vector<uint8_t> bytes(1 << 20, 1);
    for (uint64_t at = kDiskBytes; at < size; at += size / 7 / 512 * 512) {
      const auto part = std::span(bytes).first(std::min<uint64_t>(bytes.size(), size - at));
      ASSERT_TRUE(Await(ReadAt(*disk, at, part), storage_).ok());
      EXPECT_TRUE(std::ranges::all_of(part, [](uint8_t byte) { return byte == 0; })) << at;
    }
    ASSERT_TRUE(Await(WriteAt(*disk, size - 512, std::span(bytes).first(512)), storage_).ok());
    ASSERT_TRUE(Await(disk->Close(), storage_).ok());
    EXPECT_TRUE(CheckIt().sound());
  }
};

TEST_F(ResizeTest, FixedImagesGrow) {
  Make(Type::kFixed);
  ASSERT_TRUE(ResizeTo(20 << 20).ok());
  ExpectGrown(20 << 20);
}

TEST_F(ResizeTest, DynamicImagesGrowWithinTheTable) {
  Make();
  ASSERT_TRUE(ResizeTo(kDiskBytes + 512 * 9).ok());
  ExpectGrown(kDiskBytes + 512 * 9);
}

TEST_F(ResizeTest, AFullHostGetsBackWhatAResizeTook) {
  for (const Type type : {Type::kFixed, Type::kDynamic}) {
    for (int room = 0;; ++room) {
      SCOPED_TRACE(absl::StrCat(static_cast<int>(type), " ", room));
      storage_.Truncate(0);
      history_ = SectorHistory(kDiskBytes / 512);
      Make(type);
      RepairIt();
      const uint64_t file_bytes = storage_.size();
      int taken = 0;
      storage_.on_request = [&](const Request& request) {
        const bool takes =
            request.operation != Operation::kRead && request.offset + request.length > file_bytes;
        return takes && taken++ >= room ? absl::ResourceExhaustedError("full") : absl::OkStatus();
      };
      // Its table has to move.
      const absl::Status status = ResizeTo(uint64_t{300} << 30);
      storage_.on_request = nullptr;
      if (status.ok()) break;
      EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
      ExpectIntact();
      EXPECT_TRUE(CheckIt().clean());
      if (type == Type::kFixed) {
        EXPECT_EQ(storage_.size(), file_bytes);
      }
    }
  }
}

// There are readers that go by either.
TEST_F(ResizeTest, BothSizesOfTheFooterFollow) {
  for (const Type type : {Type::kFixed, Type::kDynamic}) {
    storage_.Truncate(0);
    history_ = SectorHistory(kDiskBytes / 512);
    Make(type);
    for (const uint64_t size : {uint64_t{20} << 20, kDiskBytes}) {
      ASSERT_TRUE(ResizeTo(size).ok());
      std::array<uint8_t, 512> footer;
      storage_.Peek(storage_.size() - 512, footer);
      EXPECT_EQ(LoadBe<uint64_t>(footer.data() + 40), size);  // Original Size
      EXPECT_EQ(LoadBe<uint64_t>(footer.data() + 48), size);  // Current Size
    }
  }
}

TEST_F(ResizeTest, DynamicImagesGrowToAnySize) {
  Make();
  ASSERT_TRUE(ResizeTo(uint64_t{300} << 30).ok());
  ExpectGrown(uint64_t{300} << 30);
  // The table moved; it is small against what it may still become.
  ASSERT_TRUE(ResizeTo(uint64_t{600} << 30).ok());
  std::unique_ptr<Disk> disk = OpenIt();
  EXPECT_EQ(disk->geometry().size_bytes, uint64_t{600} << 30);
  RandomLoad load(*disk, history_, {&storage_}, {});
  EXPECT_EQ(load.Verify(), "");
}

TEST_F(ResizeTest, ShrinkingRefusesToCutData) {
  for (const Type type : {Type::kFixed, Type::kDynamic}) {
    storage_.Truncate(0);
    history_ = SectorHistory(kDiskBytes / 512);
    Make(type);
    EXPECT_EQ(ResizeTo(1 << 20).code(), absl::StatusCode::kFailedPrecondition);
    ExpectIntact();
    ASSERT_TRUE(ResizeTo(1 << 20, true).ok());
    std::unique_ptr<Disk> disk = OpenIt();
    EXPECT_EQ(disk->geometry().size_bytes, 1U << 20);
    disk.reset();
    EXPECT_TRUE(CheckIt().sound());
    // What was cut off doesn't come back.
    ASSERT_TRUE(ResizeTo(kDiskBytes).ok());
    disk = OpenIt();
    std::vector<uint8_t> bytes(kDiskBytes - (1 << 20));
    ASSERT_TRUE(Await(ReadAt(*disk, 1 << 20, bytes), storage_).ok());
    EXPECT_TRUE(std::ranges::all_of(bytes, [](uint8_t byte) { return byte == 0; }));
  }
}

TEST_F(ResizeTest, CanBeInterruptedWhileItLooksForData) {
  for (const Type type : {Type::kFixed, Type::kDynamic}) {
    SCOPED_TRACE(static_cast<int>(type));
    storage_.Truncate(0);
    const CreateOptions create = {
        .size_bytes = kDiskBytes, .type = type, .block_size_bytes = kMinBlockBytes};
    ASSERT_TRUE(Await(Create(storage_, create), storage_).ok());
    // Blocks that hold zeros have to be read.
    std::unique_ptr<Disk> disk = OpenIt();
    const std::vector<uint8_t> zeros(kDiskBytes);
    ASSERT_TRUE(Await(WriteAt(*disk, 0, std::span(zeros)), storage_).ok());
    ASSERT_TRUE(Await(disk->Close(), storage_).ok());
    disk.reset();
    const MemoryStorage::Chunks before = storage_.chunks();
    std::stop_source stop;
    uint64_t last_done = 0;
    uint64_t last_total = 0;
    ResizeOptions options = {.size_bytes = 1 << 20};
    options.stop = stop.get_token();
    options.progress = [&](uint64_t done, uint64_t total) {
      EXPECT_LE(done, total);
      last_done = done;
      last_total = total;
      if (total == kDiskBytes - (1 << 20)) stop.request_stop();
    };
    EXPECT_TRUE(absl::IsCancelled(Await(Resize(storage_, options), storage_)));
    EXPECT_LT(last_done, last_total);
    EXPECT_TRUE(storage_.chunks() == before);
    options.stop = {};
    EXPECT_TRUE(Await(Resize(storage_, options), storage_).ok());
    EXPECT_EQ(last_total, kDiskBytes - (1 << 20));
    EXPECT_EQ(last_done, last_total);
  }
}

// As when it was cut off between writing the one and the other.
TEST_F(ResizeTest, PutsFootersThatDifferRight) {
  Make();
  std::vector<uint8_t> old(512);
  storage_.Peek(0, old);
  ASSERT_TRUE(ResizeTo(20 << 20).ok());
  for (const uint64_t size : {20 << 20, 30 << 20}) {
    storage_.Poke(0, old);
    EXPECT_EQ(CheckIt().problems.front().message, "differs from the footer");
    const absl::Status status = ResizeTo(size);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(CheckIt().worst, Severity::kNote);
  }
  ExpectGrown(30 << 20);
}

TEST_F(ResizeTest, RefusesSizesThatCannotBe) {
  Make();
  EXPECT_EQ(ResizeTo(0).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ResizeTo(1000).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ResizeTo(kMaxDiskBytes + 512).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace bothy::disk::vhd1
