// Check, Repair, Resize and SetParentLinkage.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <stop_token>

#include "disk/vhdx/bat.h"
#include "disk/vhdx/image_file.h"
#include "disk/vhdx/test_images.h"
#include "support/endian.h"

namespace bothy::disk::vhdx {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMiB1 = 1 << 20;

std::vector<uint8_t> Pattern(size_t length, uint8_t seed) {
  std::vector<uint8_t> bytes(length);
  for (size_t i = 0; i < length; ++i) bytes[i] = static_cast<uint8_t>(seed + i / 512 + 1);
  return bytes;
}

class VhdxMaintainTest : public ::testing::Test {
 protected:
  void Make(Shape shape) { images_ = std::make_unique<TestImages>(shape); }
  MemoryStorage& file() { return images_->image(); }
  void WriteDisk(uint64_t offset, std::span<const uint8_t> bytes) {
    auto disk = images_->OpenImage();
    ASSERT_TRUE(Await(WriteAt(*disk, offset, bytes), images_->both()).ok());
    ASSERT_TRUE(Await(disk->Close(), images_->both()).ok());
  }
  std::vector<uint8_t> ReadDisk(uint64_t offset, size_t length) {
    std::vector<uint8_t> bytes(length);
    auto disk = images_->OpenImage(true);
    EXPECT_TRUE(Await(ReadAt(*disk, offset, std::span<uint8_t>(bytes)), images_->both()).ok());
    EXPECT_TRUE(Await(disk->Close(), images_->both()).ok());
    return bytes;
  }
  // By which children know the image.
  std::optional<Guid> Linkage() {
    auto disk = images_->OpenImage(true);
    std::optional<Guid> linkage = disk->linkage();
    EXPECT_TRUE(Await(disk->Close(), images_->both()).ok());
    return linkage;
  }
  CheckReport CheckFile() {
    auto report = Await(Check(file()), file());
    CHECK_OK(report.status());
    return *std::move(report);
  }
  BatLayout Bat() {
    auto image = Await(ImageFile::Open(file(), ImageFile::Mode::kReadOnly), file());
    CHECK_OK(image.status());
    return (*image)->bat();
  }
  BatEntry Entry(uint64_t index) {
    uint8_t bytes[8];
    file().Peek(Bat().EntryOffset(index), bytes);
    return BatEntry(LoadLe<uint64_t>(bytes));
  }
  void SetEntry(uint64_t index, BatEntry entry) {
    uint8_t bytes[8];
    StoreLe(bytes, entry.bits());
    file().Poke(Bat().EntryOffset(index), bytes);
  }
  absl::Status ResizeTo(uint64_t size, bool discard_data = false) {
    ResizeOptions options = {.size_bytes = size, .discard_data = discard_data};
    options.open_parent = images_->parent_opener();
    return Await(Resize(file(), options), images_->both());
  }

  std::unique_ptr<TestImages> images_;
};

TEST_F(VhdxMaintainTest, AFreshImageIsClean) {
  for (const Type type : {Type::kFixed, Type::kDynamic, Type::kDifferencing}) {
    Make({.type = type});
    const CheckReport report = CheckFile();
    EXPECT_TRUE(report.clean());
    EXPECT_EQ(report.blocks_total, 9U);
    EXPECT_EQ(report.blocks_allocated, type == Type::kFixed ? 9U : 0U);
  }
}

TEST_F(VhdxMaintainTest, RestoresADamagedHeader) {
  Make({});
  for (const uint64_t offset : kHeaderOffsets) {
    const auto bytes = Pattern(512, 3);
    file().Poke(offset + 100, bytes);
    const CheckReport before = CheckFile();
    ASSERT_EQ(before.problems.size(), 1U);
    EXPECT_EQ(before.problems[0].severity, Severity::kWarning);
    EXPECT_THAT(before.problems[0].field, HasSubstr("Header"));
    ASSERT_TRUE(Await(Repair(file()), file()).ok());
    EXPECT_TRUE(CheckFile().clean());
  }
}

TEST_F(VhdxMaintainTest, RestoresADamagedRegionTable) {
  Make({});
  for (const uint64_t offset : kRegionTableOffsets) {
    file().Poke(offset + 5, Pattern(1, 77));
    ASSERT_EQ(CheckFile().problems.size(), 1U);
    EXPECT_EQ(CheckFile().problems[0].offset, offset + 4);
    ASSERT_TRUE(Await(Repair(file()), file()).ok());
    EXPECT_TRUE(CheckFile().clean());
  }
}

TEST_F(VhdxMaintainTest, TellsThatNeitherHeaderIsGood) {
  Make({});
  for (const uint64_t offset : kHeaderOffsets) file().Poke(offset, Pattern(8, 1));
  const CheckReport report = CheckFile();
  ASSERT_EQ(report.problems.size(), 1U);
  EXPECT_FALSE(report.sound());
  EXPECT_EQ(report.problems[0].field, "Header.Signature");
  EXPECT_EQ(report.problems[0].offset, kHeaderOffsets[0]);
}

TEST_F(VhdxMaintainTest, GivesBlocksThatShareSpaceTheirOwn) {
  Make({});
  const auto data = Pattern(kMiB1, 9);
  WriteDisk(0, data);
  SetEntry(3, Entry(0));
  const CheckReport report = CheckFile();
  ASSERT_EQ(report.problems.size(), 1U);
  EXPECT_EQ(report.problems[0].field, "BAT[3]");
  EXPECT_EQ(report.problems[0].offset, Bat().EntryOffset(3));
  EXPECT_THAT(report.problems[0].message, HasSubstr("shares its space"));
  ASSERT_TRUE(Await(Repair(file()), file()).ok());
  EXPECT_TRUE(CheckFile().clean());
  EXPECT_NE(Entry(3), Entry(0));
  EXPECT_EQ(ReadDisk(0, kMiB1), data);
  EXPECT_EQ(ReadDisk(3 * kMiB1, kMiB1), data);
}

TEST_F(VhdxMaintainTest, LetsBlocksOutsideTheFileReadAsZero) {
  Make({});
  WriteDisk(kMiB1, Pattern(kMiB1, 9));
  SetEntry(1, BatEntry(BlockState::kFullyPresent, uint64_t{1} << 40));
  SetEntry(2, BatEntry(5));
  SetEntry(4, BatEntry(BlockState::kPartiallyPresent, kMiB1));
  EXPECT_EQ(CheckFile().problems.size(), 4U);  // and what block 1 had
  auto disk = images_->OpenImage();
  std::vector<uint8_t> bytes(512);
  for (const uint64_t block : {1, 2, 4}) {
    const absl::Status status =
        Await(ReadAt(*disk, block * kMiB1, std::span<uint8_t>(bytes)), file());
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("BAT["));
    EXPECT_TRUE(absl::IsDataLoss(
        Await(WriteAt(*disk, block * kMiB1, std::span<const uint8_t>(bytes)), file())));
  }
  ASSERT_TRUE(Await(disk->Close(), file()).ok());
  disk.reset();
  ASSERT_TRUE(Await(Repair(file()), file()).ok());
  EXPECT_TRUE(CheckFile().sound());
  EXPECT_EQ(ReadDisk(kMiB1, kMiB1), std::vector<uint8_t>(kMiB1));
  EXPECT_EQ(CheckFile().leaked_bytes, kMiB1);
}

TEST_F(VhdxMaintainTest, KeepsBlocksWhoseReservedBitsAreSet) {
  for (const Type type : {Type::kDynamic, Type::kDifferencing}) {
    Make({.type = type});
    const auto data = Pattern(4096, 9);
    WriteDisk(0, data);
    WriteDisk(kMiB1, data);
    std::vector<uint64_t> indexes = {0};
    if (type == Type::kDifferencing) indexes.push_back(Bat().BitmapIndex(0));
    std::vector<BatEntry> before;
    for (const uint64_t index : indexes) {
      before.push_back(Entry(index));
      SetEntry(index, BatEntry(Entry(index).bits() | 0x8008));
    }
    const CheckReport report = CheckFile();
    ASSERT_EQ(report.problems.size(), indexes.size());  // their space has its owner
    EXPECT_THAT(report.problems[0].message, HasSubstr("reserved"));
    ASSERT_TRUE(Await(Repair(file()), file()).ok());
    EXPECT_TRUE(CheckFile().clean());
    for (size_t i = 0; i < indexes.size(); ++i) EXPECT_EQ(Entry(indexes[i]), before[i]);
    EXPECT_EQ(ReadDisk(0, 4096), data);
    EXPECT_EQ(ReadDisk(kMiB1, 4096), data);
  }
}

TEST_F(VhdxMaintainTest, ExtendsAFileThatWasCutShort) {
  Make({});
  const auto data = Pattern(kMiB1, 9);
  WriteDisk(0, data);
  WriteDisk(kMiB1, data);
  // What is wholly past the file's end is gone, also where the file will be longer again.
  SetEntry(3, BatEntry(BlockState::kFullyPresent, Entry(1).file_offset() + kMiB1));
  // A block that shares what was cut gets a copy with the same zeros.
  SetEntry(4, Entry(1));
  constexpr uint64_t kKept = 512 << 10;
  file().Truncate(Entry(1).file_offset() + kKept);
  const CheckReport report = CheckFile();
  EXPECT_EQ(report.problems.size(), 3U);
  EXPECT_EQ(report.problems[0].field, "BAT[1]");
  EXPECT_THAT(report.problems[0].message, HasSubstr("ends past"));
  ASSERT_TRUE(Await(Repair(file()), file()).ok());
  EXPECT_TRUE(CheckFile().clean());
  EXPECT_EQ(ReadDisk(0, kMiB1), data);
  auto cut = data;
  std::fill(cut.begin() + kKept, cut.end(), 0);
  EXPECT_EQ(ReadDisk(kMiB1, kMiB1), cut);
  EXPECT_EQ(ReadDisk(3 * kMiB1, kMiB1), std::vector<uint8_t>(kMiB1));
  EXPECT_EQ(ReadDisk(4 * kMiB1, kMiB1), cut);
}

TEST_F(VhdxMaintainTest, ExtendsASectorBitmapThatWasCutShort) {
  Make({.type = Type::kDifferencing});
  const auto data = Pattern(4096, 9);
  WriteDisk(0, data);
  const uint64_t bitmap = Bat().BitmapIndex(0);
  // To the file's end.
  const uint64_t to = RoundUp(file().size(), kMiB1);
  std::vector<uint8_t> bits(4096);
  file().Peek(Entry(bitmap).file_offset(), bits);
  file().Poke(to, bits);
  SetEntry(bitmap, BatEntry(BlockState::kFullyPresent, to));
  ASSERT_TRUE(Await(Repair(file()), file()).ok());
  EXPECT_TRUE(CheckFile().sound());
  EXPECT_EQ(Entry(0).state(), BlockState::kPartiallyPresent);
  EXPECT_EQ(ReadDisk(0, 4096), data);
}

TEST_F(VhdxMaintainTest, GivesNothingBackAsLongAsItDropsBlocks) {
  Make({});
  const auto data = Pattern(kMiB1, 9);
  WriteDisk(0, data);
  WriteDisk(kMiB1, data);
  const uint64_t lost = Entry(1).file_offset();
  SetEntry(1, BatEntry(5 | lost));
  ASSERT_TRUE(Await(Repair(file()), file()).ok());
  EXPECT_TRUE(CheckFile().sound());
  EXPECT_EQ(CheckFile().leaked_bytes, kMiB1);
  std::vector<uint8_t> there(kMiB1);
  ASSERT_EQ(file().size(), lost + kMiB1);
  file().Peek(lost, there);
  EXPECT_EQ(there, data);
  // Whoever wants the room back says so.
  ASSERT_TRUE(Await(Repair(file()), file()).ok());
  EXPECT_TRUE(CheckFile().clean());
  EXPECT_EQ(file().size(), lost);
}

TEST_F(VhdxMaintainTest, MendsAllFaultsOfAnEntryAtOnce) {
  Make({.type = Type::kDifferencing});
  const auto data = Pattern(4096, 9);
  WriteDisk(0, data);
  // Block 1 shares the place of block 0, is partially present, and there is no sector bitmap.
  SetEntry(1, BatEntry(Entry(0).bits() | 0x10));
  SetEntry(Bat().BitmapIndex(0), BatEntry(BlockState::kFullyPresent, uint64_t{1} << 40));
  ASSERT_TRUE(Await(Repair(file()), file()).ok());
  EXPECT_TRUE(CheckFile().sound());
  EXPECT_EQ(Entry(1).state(), BlockState::kFullyPresent);
  EXPECT_NE(Entry(1), Entry(0));
  EXPECT_EQ(ReadDisk(0, 4096), data);
  EXPECT_EQ(ReadDisk(kMiB1, 4096), data);
}

TEST_F(VhdxMaintainTest, GrowsWithinTheBat) {
  for (const Type type : {Type::kFixed, Type::kDynamic, Type::kDifferencing}) {
    SCOPED_TRACE(static_cast<int>(type));
    Make({.type = type, .disk_bytes = 9 * kMiB1 + 4096});
    const auto data = Pattern(4096, 5);
    WriteDisk(9 * kMiB1, data);
    ASSERT_TRUE(ResizeTo(20 * kMiB1).ok());
    EXPECT_TRUE(CheckFile().clean());
    EXPECT_EQ(images_->OpenImage(true)->geometry().size_bytes, 20 * kMiB1);
    EXPECT_EQ(ReadDisk(9 * kMiB1, 4096), data);
    EXPECT_EQ(ReadDisk(9 * kMiB1 + 4096, 8192), std::vector<uint8_t>(8192));
    WriteDisk(20 * kMiB1 - 4096, data);
    EXPECT_EQ(ReadDisk(20 * kMiB1 - 4096, 4096), data);
    EXPECT_TRUE(CheckFile().clean());
  }
}

TEST_F(VhdxMaintainTest, MovesABatThatGetsTooSmall) {
  for (const Type type : {Type::kDynamic, Type::kDifferencing}) {
    Make({.type = type});
    const auto data = Pattern(kMiB1, 5);
    WriteDisk(4 * kMiB1, data);
    // A BAT of 1 MiB has 131072 entries.
    const uint64_t size = 300'000 * kMiB1;
    ASSERT_TRUE(ResizeTo(size).ok());
    EXPECT_EQ(ReadDisk(4 * kMiB1, kMiB1), data);
    WriteDisk(size - kMiB1, data);
    EXPECT_EQ(ReadDisk(size - kMiB1, kMiB1), data);
    const CheckReport report = CheckFile();
    EXPECT_TRUE(report.sound());
    EXPECT_EQ(report.leaked_bytes, kMiB1);  // the old one
    ASSERT_TRUE(ResizeTo(kMaxDiskBytes).ok());
    EXPECT_EQ(ReadDisk(size - kMiB1, kMiB1), data);
  }
}

TEST_F(VhdxMaintainTest, ShrinksOnlyWhereThereIsNoData) {
  for (const Type type : {Type::kFixed, Type::kDynamic, Type::kDifferencing}) {
    SCOPED_TRACE(static_cast<int>(type));
    Make({.type = type});
    const auto data = Pattern(kMiB1, 5);
    WriteDisk(4 * kMiB1, data);
    EXPECT_TRUE(absl::IsFailedPrecondition(ResizeTo(4 * kMiB1 + 4096)));
    EXPECT_EQ(ReadDisk(4 * kMiB1, kMiB1), data);
    ASSERT_TRUE(ResizeTo(5 * kMiB1, type == Type::kDifferencing).ok());
    EXPECT_EQ(ReadDisk(4 * kMiB1, kMiB1), data);
    EXPECT_TRUE(type == Type::kFixed || CheckFile().clean());
    ASSERT_TRUE(ResizeTo(4 * kMiB1 + 4096, true).ok());
    ASSERT_TRUE(ResizeTo(6 * kMiB1).ok());
    EXPECT_EQ(ReadDisk(4 * kMiB1, 4096), std::vector<uint8_t>(data.begin(), data.begin() + 4096));
    // What was cut off doesn't come back.
    EXPECT_EQ(ReadDisk(4 * kMiB1 + 4096, 2 * kMiB1 - 4096), std::vector<uint8_t>(2 * kMiB1 - 4096));
  }
}

// What a child shows past the new end is lost to it, whoever holds it.
TEST_F(VhdxMaintainTest, ShrinkingRefusesToCutWhatTheParentHas) {
  Make({.type = Type::kDifferencing});
  EXPECT_TRUE(absl::IsFailedPrecondition(ResizeTo(4 * kMiB1)));
  WriteDisk(4 * kMiB1, std::vector<uint8_t>(5 * kMiB1));
  EXPECT_TRUE(ResizeTo(4 * kMiB1).ok());
}

// The entries of a differencing image fill whole chunks, past the disk's end too.
TEST_F(VhdxMaintainTest, GrowingDoesNotBringBackWhatAChildHeld) {
  Make({.type = Type::kDifferencing});
  WriteDisk(3 * kMiB1, Pattern(4096, 1));
  WriteDisk(7 * kMiB1, Pattern(4096, 5));
  WriteDisk(8 * kMiB1, Pattern(kMiB1, 6));
  ASSERT_TRUE(ResizeTo(4 * kMiB1 + 4096, true).ok());
  const CheckReport report = CheckFile();
  EXPECT_TRUE(report.clean());
  EXPECT_EQ(report.blocks_allocated, 1U);
  ASSERT_TRUE(ResizeTo(9 * kMiB1).ok());
  EXPECT_EQ(ReadDisk(3 * kMiB1, 4096), Pattern(4096, 1));
  EXPECT_EQ(ReadDisk(4 * kMiB1 + 4096, 5 * kMiB1 - 4096), std::vector<uint8_t>(5 * kMiB1 - 4096));
}

// Nor what the parent has past the end that the image had, in whatever state its last block is.
TEST_F(VhdxMaintainTest, GrowingShowsNothingOfTheParent) {
  enum class Last { kParents, kPartly, kWhole, kZero };
  for (const uint32_t sector_bytes : {512U, 4096U}) {
    for (const Last last : {Last::kParents, Last::kPartly, Last::kWhole, Last::kZero}) {
      for (const uint64_t size : {3 * kMiB1 + kMiB1 / 2, 3 * kMiB1}) {
        // In the same block, within the parent, past its end; moving the BAT.
        for (const uint64_t to :
             {4 * kMiB1 - 4096, 6 * kMiB1 + 4096, 20 * kMiB1, 300'000 * kMiB1}) {
          SCOPED_TRACE(absl::StrCat(sector_bytes, " ", static_cast<int>(last), " ", size, " ", to));
          Make({.type = Type::kDifferencing, .sector_bytes = sector_bytes});
          ASSERT_TRUE(ResizeTo(size, true).ok());
          if (last == Last::kPartly) WriteDisk(size - 4096, Pattern(4096, 5));
          if (last == Last::kWhole) WriteDisk(0, Pattern(size, 5));
          if (last == Last::kZero) SetEntry((size - 1) / kMiB1, BatEntry(BlockState::kZero, 0));
          const std::vector<uint8_t> before = ReadDisk(0, size);
          ASSERT_TRUE(ResizeTo(to).ok());
          EXPECT_EQ(ReadDisk(0, size), before);
          const uint64_t gained = std::min(to, 10 * kMiB1) - size;
          EXPECT_TRUE(ReadDisk(size, gained) == std::vector<uint8_t>(gained));
          EXPECT_TRUE(CheckFile().sound());
          // Past the parent's end there is nothing to hide.
          if (to >= 20 * kMiB1) {
            EXPECT_EQ(Entry(9), BatEntry());
          }
        }
      }
    }
  }
}

TEST_F(VhdxMaintainTest, GrowingOnAFullHostTakesNoRoom) {
  // Moving the BAT; with blocks of its own; with a block and a sector bitmap.
  const std::pair<Type, uint64_t> cases[] = {{Type::kDynamic, 300'000 * kMiB1},
                                             {Type::kFixed, 20 * kMiB1},
                                             {Type::kDifferencing, 300'000 * kMiB1}};
  for (const auto& [type, to] : cases) {
    for (int room = 0;; ++room) {
      SCOPED_TRACE(absl::StrCat(static_cast<int>(type), " ", room));
      Make({.type = type});
      ASSERT_TRUE(ResizeTo(3 * kMiB1 + 4096, true).ok());
      WriteDisk(0, Pattern(kMiB1, 3));
      ASSERT_TRUE(Await(Repair(file()), file()).ok());
      const std::vector<uint8_t> before = ReadDisk(0, 3 * kMiB1 + 4096);
      const uint64_t file_bytes = file().size();
      const std::optional<Guid> linkage = Linkage();
      const uint64_t leaked = CheckFile().leaked_bytes;  // what the shrink left of a fixed one
      int taken = 0;
      file().on_request = [&](const Request& request) {
        const bool takes =
            request.operation != Operation::kRead && request.offset + request.length > file_bytes;
        return takes && taken++ >= room ? absl::ResourceExhaustedError("full") : absl::OkStatus();
      };
      const absl::Status status = ResizeTo(to);
      file().on_request = nullptr;
      if (status.ok()) break;
      EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
      EXPECT_EQ(ReadDisk(0, before.size()), before);
      EXPECT_EQ(Linkage(), linkage) << "children go by it";
      EXPECT_TRUE(CheckFile().sound());
      EXPECT_EQ(CheckFile().leaked_bytes, leaked);
      // In a differencing image the last block may have got zeros of its own.
      if (type == Type::kDifferencing) {
        EXPECT_LE(file().size(), file_bytes + 2 * kMiB1);
      } else {
        EXPECT_EQ(file().size(), file_bytes);
      }
    }
  }
}

TEST_F(VhdxMaintainTest, GrowingNeedsTheParent) {
  Make({.type = Type::kDifferencing});
  const MemoryStorage::Chunks before = file().chunks();
  ResizeOptions options = {.size_bytes = 20 * kMiB1};
  options.open_parent = [](const ParentReference&) -> Task<absl::StatusOr<std::unique_ptr<Disk>>> {
    co_return absl::NotFoundError("base.vhdx");
  };
  EXPECT_TRUE(absl::IsNotFound(Await(Resize(file(), options), file())));
  EXPECT_TRUE(file().chunks() == before);
}

TEST_F(VhdxMaintainTest, GrowingClearsEntriesThatOthersLeft) {
  // Within the BAT, and moving it.
  for (const uint64_t size : {9 * kMiB1, 300'000 * kMiB1}) {
    Make({.type = Type::kDifferencing});
    WriteDisk(7 * kMiB1, Pattern(4096, 5));
    WriteDisk(3 * kMiB1, Pattern(4096, 1));
    const BatEntry left = Entry(7);
    ASSERT_TRUE(ResizeTo(5 * kMiB1, true).ok());
    SetEntry(7, left);
    SetEntry(4000, BatEntry(BlockState::kZero, 0));
    const BatEntry bitmap = Entry(Bat().BitmapIndex(0));
    ASSERT_TRUE(ResizeTo(size).ok());
    EXPECT_EQ(Entry(7), BatEntry(BlockState::kZero, 0));
    EXPECT_EQ(Entry(4000), BatEntry());
    EXPECT_EQ(Entry(4096), bitmap);
    EXPECT_EQ(ReadDisk(7 * kMiB1, kMiB1), std::vector<uint8_t>(kMiB1));
    EXPECT_EQ(ReadDisk(3 * kMiB1, 4096), Pattern(4096, 1));
    EXPECT_TRUE(CheckFile().sound());
  }
}

// Entries that would have a table, or another block's data, cleared as the end of the last block.
TEST_F(VhdxMaintainTest, ResizingRefusesABatThatCannotBe) {
  const uint64_t size = 8 * kMiB1 + 4096;
  struct Case {
    const char* name;
    Type type;
    uint64_t index;
    std::function<BatEntry(const BatLayout&)> entry;
  };
  const auto at_the_bat = [](const BatLayout& bat) {
    return BatEntry(BlockState::kFullyPresent, bat.PageOffset(0));
  };
  const auto outside = [](const BatLayout&) {
    return BatEntry(BlockState::kFullyPresent, uint64_t{1} << 40);
  };
  const auto partial = [this](const BatLayout&) {
    return BatEntry(BlockState::kPartiallyPresent, Entry(0).file_offset());
  };
  const auto shared = [this](const BatLayout&) { return Entry(0); };
  const Case cases[] = {
      {"on the BAT", Type::kDynamic, 8, at_the_bat},
      {"outside", Type::kDynamic, 8, outside},
      {"on another block", Type::kDynamic, 8, shared},
      {"partial without a parent", Type::kDynamic, 8, partial},
      {"bitmap on the BAT", Type::kDifferencing, 4096, at_the_bat},
      {"a block that isn't the last", Type::kDynamic, 3, at_the_bat},
  };
  for (const Case& bad : cases) {
    SCOPED_TRACE(bad.name);
    Make({.type = bad.type, .disk_bytes = size});
    WriteDisk(0, Pattern(kMiB1, 9));
    // Partly there, in an image with a parent.
    WriteDisk(8 * kMiB1, Pattern(512, 5));
    SetEntry(bad.index, bad.entry(Bat()));
    const MemoryStorage::Chunks before = file().chunks();
    for (const uint64_t to : {size + kMiB1, size - 4096}) {
      const absl::Status status = ResizeTo(to, true);
      EXPECT_TRUE(absl::IsDataLoss(status)) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("; repair the image first"));
      EXPECT_TRUE(file().chunks() == before);
    }
    ASSERT_TRUE(Await(Repair(file()), file()).ok());
    EXPECT_TRUE(ResizeTo(size + kMiB1).ok());
    EXPECT_TRUE(CheckFile().sound());
    EXPECT_EQ(ReadDisk(0, kMiB1), Pattern(kMiB1, 9));
  }
}

// What a commit in between couldn't flush is lost, whatever the last one says.
TEST_F(VhdxMaintainTest, ResizingTellsOfEveryFlushThatFailed) {
  constexpr uint64_t kBlocks = 128 * kBatEntriesPerPage;
  for (int failing = 0;; ++failing) {
    SCOPED_TRACE(failing);
    Make({.disk_bytes = kBlocks * kMiB1});
    // Something to change in each page of the BAT: more than waits for one commit.
    for (uint64_t index = 1; index < kBlocks; index += kBatEntriesPerPage) {
      SetEntry(index, BatEntry(BlockState::kZero, 0));
    }
    int flushes = 0;
    file().on_request = [&](const Request& request) {
      if (request.operation != Operation::kFlush) return absl::OkStatus();
      return flushes++ == failing ? absl::DataLossError("EIO") : absl::OkStatus();
    };
    const absl::Status status = ResizeTo(kMiB1, true);
    file().on_request = nullptr;
    if (status.ok()) {
      EXPECT_LE(flushes, failing);
      EXPECT_GT(failing, 7);
      break;
    }
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  }
}

TEST_F(VhdxMaintainTest, ResizingCanBeInterruptedWhileItLooksForData) {
  Make({});
  WriteDisk(0, std::vector<uint8_t>(9 * kMiB1));
  const MemoryStorage::Chunks before = file().chunks();
  std::stop_source stop;
  uint64_t most = 0;
  ResizeOptions options = {.size_bytes = 2 * kMiB1};
  options.stop = stop.get_token();
  options.progress = [&](uint64_t done, uint64_t total) {
    EXPECT_LE(done, total);
    if (total != 7 * kMiB1) return;
    most = done;
    if (done == 3 * kMiB1) stop.request_stop();
  };
  const absl::Status status = Await(Resize(file(), options), file());
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_EQ(most, 3 * kMiB1);
  EXPECT_TRUE(file().chunks() == before);
  options.stop = {};
  EXPECT_TRUE(Await(Resize(file(), options), file()).ok());
  EXPECT_EQ(most, 7 * kMiB1);
}

TEST_F(VhdxMaintainTest, RefusesImpossibleSizes) {
  Make({});
  EXPECT_TRUE(absl::IsInvalidArgument(ResizeTo(0)));
  EXPECT_TRUE(absl::IsInvalidArgument(ResizeTo(511)));
  EXPECT_TRUE(absl::IsInvalidArgument(ResizeTo(kMaxDiskBytes + 512)));
}

TEST_F(VhdxMaintainTest, ChangesWhatAChildSaysOfItsParent) {
  Make({.type = Type::kDifferencing});
  auto parent =
      Await(Open(std::make_unique<BorrowedStorage>(images_->parent()), {}), images_->parent());
  ASSERT_TRUE(parent.ok());
  const Guid before = *(*parent)->linkage();
  const Guid after = Guid::Random();
  LinkageUpdate update;
  update.linkage2 = after;
  update.absolute_path = "/" + std::string(3000, 'x') + "/base.vhdx";
  ASSERT_TRUE(Await(SetParentLinkage(file(), update), file()).ok());
  EXPECT_TRUE(CheckFile().clean());
  // Good for both: before and after the parent is changed.
  auto child = images_->OpenImage(true);
  ASSERT_TRUE(Await(child->Close(), images_->both()).ok());
  child.reset();
  ASSERT_TRUE(Await((*parent)->Close(), images_->parent()).ok());
  OpenOptions options;
  options.next_linkage = after;
  parent =
      Await(Open(std::make_unique<BorrowedStorage>(images_->parent()), options), images_->parent());
  const auto data = Pattern(512, 1);
  ASSERT_TRUE(Await(WriteAt(**parent, 0, std::span<const uint8_t>(data)), images_->parent()).ok());
  ASSERT_TRUE(Await((*parent)->Close(), images_->parent()).ok());
  EXPECT_EQ((*parent)->linkage(), after);
  EXPECT_NE(before, after);
  child = images_->OpenImage(true);
  bool found = false;
  for (const Fact& fact : child->Facts()) found |= fact.name == "parent_linkage2";
  EXPECT_TRUE(found);
  ASSERT_TRUE(Await(child->Close(), images_->both()).ok());
  child.reset();
  // Once it is the only one, the old one isn't accepted any more.
  update = {
      .linkage = before, .linkage2 = Guid(), .relative_path = "other.vhdx", .absolute_path = ""};
  ASSERT_TRUE(Await(SetParentLinkage(file(), update), file()).ok());
  const auto refused = images_->TryOpenImage(file(), true, images_->both());
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status())) << refused.status();
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr(before.ToString()));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr(after.ToString()));
}

}  // namespace
}  // namespace bothy::disk::vhdx
