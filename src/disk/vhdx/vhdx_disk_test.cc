// What a VHDX disk does besides keeping bytes: what it writes when, how it fails, what it costs.
#include "disk/vhdx/vhdx_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "disk/vhdx/header_store.h"
#include "disk/vhdx/test_images.h"

namespace bothy::disk::vhdx {
namespace {

constexpr uint64_t kBlock = 1 << 20;

// A request that the test looks at later.
struct Pending final : Request {
  Pending(Operation what, uint64_t at, std::span<uint8_t> bytes)
      : buffer{.iov_base = bytes.data(), .iov_len = bytes.size()} {
    operation = what;
    offset = at;
    length = bytes.size();
    buffers = std::span(&buffer, 1);
  }
  void Complete(absl::Status result) override { status = std::move(result); }
  iovec buffer;
  std::optional<absl::Status> status;
};

class VhdxDiskTest : public ::testing::Test {
 protected:
  void Make(const Shape& shape) { images_ = std::make_unique<TestImages>(shape); }
  void OpenDisk(bool read_only = false) { disk_ = images_->OpenImage(read_only); }
  void CloseDisk() {
    ASSERT_TRUE(Await(disk_->Close(), images_->both()).ok());
    disk_.reset();
  }
  absl::Status WriteBytes(uint64_t offset, size_t length, uint8_t fill) {
    const std::vector<uint8_t> bytes(length, fill);
    return Await(WriteAt(*disk_, offset, std::span<const uint8_t>(bytes)), images_->both());
  }
  // The byte that the whole range is filled with, or -1.
  int Filled(uint64_t offset, size_t length) {
    std::vector<uint8_t> bytes(length, 0xCC);
    const absl::Status status =
        Await(ReadAt(*disk_, offset, std::span<uint8_t>(bytes)), images_->both());
    if (!status.ok()) return -2;
    return bytes == std::vector<uint8_t>(length, bytes[0]) ? bytes[0] : -1;
  }
  Header CurrentHeader() {
    auto headers = Await(HeaderStore::Load(images_->image()), images_->image());
    CHECK_OK(headers.status());
    return headers->current();
  }
  // Counts what reaches the file.
  void Count() {
    images_->image().on_request = [this](const Request& request) {
      ++counts_[request.operation];
      return absl::OkStatus();
    };
  }
  // Completes whatever waits, and what follows from that.
  void PumpAll() {
    bool progress = true;
    while (progress) {
      progress = false;
      for (MemoryStorage* storage : images_->both()) progress |= storage->Pump();
    }
  }
  // Writes as many blocks as it takes freed ones to make the disk commit on its own.
  void WriteBlocksToFree() {
    for (uint64_t block = 0; block < kFreedForACommit; ++block) {
      ASSERT_TRUE(WriteBytes(block * kBlock, 4096, 1).ok());
    }
    ASSERT_TRUE(Await(Flush(*disk_), images_->both()).ok());
    PumpAll();
  }
  static constexpr uint64_t kFreedForACommit = 64;
  // Fails that flush of the file, counted from now, and no other.
  void FailFlush(int which) {
    counts_.clear();
    images_->image().on_request = [this, which](const Request& request) {
      if (request.operation != Operation::kFlush) return absl::OkStatus();
      return counts_[Operation::kFlush]++ == which ? absl::DataLossError("EIO") : absl::OkStatus();
    };
  }
  // With blocks written that are to be freed.
  void OpenToFailTheNextFlush() {
    Make({.disk_bytes = 100 * kBlock});
    OpenDisk();
    ASSERT_NO_FATAL_FAILURE(WriteBlocksToFree());
    FailFlush(0);
  }
  // Frees them: the disk commits on its own.
  void FlushInTheBackground() {
    ASSERT_TRUE(Await(Discard(*disk_, 0, kFreedForACommit * kBlock), images_->both()).ok());
    PumpAll();
    ASSERT_EQ(counts_[Operation::kFlush], 1);
  }
  // A disk that has lost something says so until it is closed; its image is a clean one all the
  // same.
  void ExpectLost() {
    for (int i = 0; i < 2; ++i) {
      EXPECT_TRUE(absl::IsDataLoss(Await(Flush(*disk_), images_->both())));
      PumpAll();
    }
    EXPECT_TRUE(absl::IsDataLoss(Await(disk_->Close(), images_->both())));
    disk_.reset();
    EXPECT_TRUE(CurrentHeader().log_guid.is_zero());
    EXPECT_TRUE(Await(Check(images_->image()), images_->image())->sound());
  }

  std::unique_ptr<TestImages> images_;
  std::unique_ptr<Disk> disk_;
  std::map<Operation, int> counts_;
};

TEST_F(VhdxDiskTest, OpeningChangesNothing) {
  Make({});
  Count();
  OpenDisk();
  EXPECT_EQ(Filled(0, 4096), 0);
  ASSERT_TRUE(Await(Flush(*disk_), images_->both()).ok());
  CloseDisk();
  EXPECT_EQ(counts_[Operation::kWrite], 0);
  EXPECT_EQ(counts_[Operation::kFlush], 0);
}

TEST_F(VhdxDiskTest, TheFirstWriteOfASessionRenewsBothGuids) {
  Make({});
  const Header before = CurrentHeader();
  OpenDisk();
  ASSERT_TRUE(WriteBytes(0, 512, 1).ok());
  const Header first = CurrentHeader();
  EXPECT_NE(first.file_write_guid, before.file_write_guid);
  EXPECT_NE(first.data_write_guid, before.data_write_guid);
  EXPECT_EQ(disk_->linkage(), first.data_write_guid);
  ASSERT_TRUE(WriteBytes(kBlock, 512, 1).ok());
  ASSERT_TRUE(Await(Flush(*disk_), images_->both()).ok());
  const Header second = CurrentHeader();
  EXPECT_EQ(second.file_write_guid, first.file_write_guid);
  EXPECT_EQ(second.data_write_guid, first.data_write_guid);
  EXPECT_FALSE(second.log_guid.is_zero());
  CloseDisk();
  EXPECT_TRUE(CurrentHeader().log_guid.is_zero());
  EXPECT_TRUE(Await(Check(images_->image()), images_->image())->clean());
}

TEST_F(VhdxDiskTest, NewBlocksCostNoFlushAndShareOneLogEntry) {
  Make({.disk_bytes = 200 * kBlock});
  OpenDisk();
  ASSERT_TRUE(WriteBytes(0, 4096, 1).ok());
  ASSERT_TRUE(Await(Flush(*disk_), images_->both()).ok());
  // The flush was over once the log entry was durable.
  while (images_->image().Pump()) {
  }
  Count();
  for (uint64_t block = 1; block < 150; ++block) {
    ASSERT_TRUE(WriteBytes(block * kBlock, 4096, 2).ok());
  }
  EXPECT_EQ(counts_[Operation::kWrite], 149);
  EXPECT_EQ(counts_[Operation::kFlush], 0);
  // The log entry, and the page of the BAT in its place.
  ASSERT_TRUE(Await(Flush(*disk_), images_->both()).ok());
  EXPECT_EQ(counts_[Operation::kFlush], 1);
  while (images_->image().Pump()) {
  }
  EXPECT_EQ(counts_[Operation::kWrite], 151);
  // Without changes of tables a flush is a flush.
  counts_.clear();
  ASSERT_TRUE(Await(Flush(*disk_), images_->both()).ok());
  EXPECT_EQ(counts_[Operation::kFlush], 1);
  EXPECT_EQ(counts_[Operation::kWrite], 0);
  CloseDisk();
}

TEST_F(VhdxDiskTest, RequestsOfOtherBlocksGoOnDuringACommit) {
  Make({});
  OpenDisk();
  ASSERT_TRUE(WriteBytes(0, 4096, 1).ok());
  Pending flush(Operation::kFlush, 0, {});
  disk_->Submit(flush);
  ASSERT_EQ(images_->image().waiting(), 1U);  // the log entry's write
  std::vector<uint8_t> bytes(4096, 7);
  std::vector<std::unique_ptr<Pending>> writes;
  for (uint64_t block = 1; block < 5; ++block) {
    writes.push_back(std::make_unique<Pending>(Operation::kWrite, block * kBlock, bytes));
    disk_->Submit(*writes.back());
  }
  // All of them are on their way.
  EXPECT_EQ(images_->image().waiting(), 5U);
  while (images_->image().Pump()) {
  }
  EXPECT_TRUE(flush.status->ok());
  for (const auto& write : writes) EXPECT_TRUE(write->status->ok());
  CloseDisk();
}

TEST_F(VhdxDiskTest, FreedSpaceIsUsedAgain) {
  Make({.disk_bytes = 64 * kBlock});
  OpenDisk();
  for (uint64_t block = 0; block < 8; ++block) {
    ASSERT_TRUE(WriteBytes(block * kBlock, kBlock, 5).ok());
  }
  ASSERT_TRUE(Await(Flush(*disk_), images_->both()).ok());
  ASSERT_TRUE(Await(Discard(*disk_, 0, 8 * kBlock), images_->both()).ok());
  const size_t held = images_->image().resident_bytes();
  ASSERT_TRUE(Await(Flush(*disk_), images_->both()).ok());
  EXPECT_EQ(Filled(0, kBlock), 0);
  while (images_->image().Pump()) {
  }
  // Given back to the host, and taken for other blocks, which read as zero where nobody wrote.
  EXPECT_LE(images_->image().resident_bytes() + 7 * kBlock, held);
  for (uint64_t block = 20; block < 28; ++block) {
    ASSERT_TRUE(WriteBytes(block * kBlock + 8192, 4096, 6).ok());
    EXPECT_EQ(Filled(block * kBlock, 8192), 0);
  }
  CloseDisk();
  const auto report = Await(Check(images_->image()), images_->image());
  EXPECT_TRUE(report->clean());
  EXPECT_EQ(report->blocks_allocated, 8U);
}

TEST_F(VhdxDiskTest, AFullHostFailsWritesAndNothingElse) {
  Make({.disk_bytes = 64 * kBlock});
  OpenDisk();
  ASSERT_TRUE(WriteBytes(0, 4096, 1).ok());
  bool full = true;
  images_->image().on_resize = [&full](uint64_t) {
    return full ? absl::ResourceExhaustedError("full") : absl::OkStatus();
  };
  images_->image().on_request = [&full](const Request& request) {
    return full && request.operation == Operation::kWrite && request.offset >= 4 * kBlock
               ? absl::ResourceExhaustedError("full")
               : absl::OkStatus();
  };
  int failed = 0;
  for (uint64_t block = 1; block < 64; ++block) {
    const absl::Status status = WriteBytes(block * kBlock, 4096, 2);
    EXPECT_TRUE(status.ok() || absl::IsResourceExhausted(status)) << status;
    failed += status.ok() ? 0 : 1;
  }
  EXPECT_EQ(failed, 63);
  EXPECT_EQ(Filled(0, 4096), 1);
  full = false;
  for (uint64_t block = 1; block < 64; ++block) {
    ASSERT_TRUE(WriteBytes(block * kBlock, 4096, 2).ok());
  }
  ASSERT_TRUE(Await(Flush(*disk_), images_->both()).ok());
  CloseDisk();
  EXPECT_TRUE(Await(Check(images_->image()), images_->image())->clean());
}

// Every request to the file fails once: the guest hears of it or not, the image stays whole, and
// the disk goes on.
TEST_F(VhdxDiskTest, SurvivesEveryFailureOfTheFile) {
  for (const Type type : {Type::kDynamic, Type::kDifferencing}) {
    for (int failing = 0; failing < 120; failing += 3) {
      SCOPED_TRACE(absl::StrCat("request ", failing));
      Make({.type = type});
      OpenDisk();
      int count = 0;
      bool lost = false;  // a flush failed
      images_->image().on_request = [&](const Request& request) {
        if (request.operation == Operation::kRead || count++ != failing) return absl::OkStatus();
        lost = request.operation == Operation::kFlush;
        return absl::ResourceExhaustedError("once");
      };
      std::vector<int> expected(9, -1);
      for (int round = 1; round < 4; ++round) {
        for (uint64_t block = 0; block < 9; ++block) {
          // Whether one write fails is the file's affair; the next one is good.
          if (!WriteBytes(block * kBlock, 8192, static_cast<uint8_t>(round)).ok()) {
            ASSERT_TRUE(WriteBytes(block * kBlock, 8192, static_cast<uint8_t>(round)).ok());
          }
          expected[block] = round;
        }
        if (!Await(Discard(*disk_, 4 * kBlock, kBlock), images_->both()).ok()) {
          ASSERT_TRUE(Await(Discard(*disk_, 4 * kBlock, kBlock), images_->both()).ok());
        }
        expected[4] = 0;
        if (!Await(Flush(*disk_), images_->both()).ok()) {
          ASSERT_EQ(Await(Flush(*disk_), images_->both()).ok(), !lost);
        }
        for (uint64_t block = 0; block < 9; ++block) {
          ASSERT_EQ(Filled(block * kBlock, 8192), expected[block]) << block;
        }
      }
      const absl::Status closed = Await(disk_->Close(), images_->both());
      EXPECT_TRUE(!lost || !closed.ok());
      disk_.reset();
      images_->image().on_request = nullptr;
      const auto report = Await(Check(images_->image()), images_->image());
      ASSERT_TRUE(report.ok());
      ASSERT_TRUE(report->sound());
      OpenDisk();
      for (uint64_t block = 0; block < 9; ++block) {
        ASSERT_EQ(Filled(block * kBlock, 8192), expected[block]) << block << " " << closed;
      }
      CloseDisk();
    }
  }
}

// As a conversion writes a new image.
TEST_F(VhdxDiskTest, WritesThatShareANewBlockTakeOne) {
  for (const Type type : {Type::kDynamic, Type::kDifferencing}) {
    Make({.type = type});
    OpenDisk();
    std::vector<uint8_t> bytes(64 << 10, 1);
    std::vector<std::unique_ptr<Pending>> writes;
    for (uint64_t at = 0; at < 3 * kBlock; at += bytes.size()) {
      writes.push_back(std::make_unique<Pending>(Operation::kWrite, at, std::span(bytes)));
      disk_->Submit(*writes.back());
    }
    PumpAll();
    for (const auto& write : writes) ASSERT_TRUE(write->status.has_value() && write->status->ok());
    CloseDisk();
    const auto report = Await(Check(images_->image()), images_->image());
    ASSERT_TRUE(report.ok());
    EXPECT_TRUE(report->clean());
    EXPECT_EQ(report->blocks_allocated, 3U);
  }
}

TEST_F(VhdxDiskTest, BlocksGivenUpAtTheFilesEndAreCutOff) {
  Make({});
  OpenDisk();
  for (uint64_t block = 0; block < 4; ++block) {
    ASSERT_TRUE(WriteBytes(block * kBlock, 4096, 1).ok());
  }
  CloseDisk();
  const uint64_t file_bytes = images_->image().size();
  OpenDisk();
  ASSERT_TRUE(Await(Discard(*disk_, 2 * kBlock, 2 * kBlock), images_->both()).ok());
  ASSERT_TRUE(Await(Flush(*disk_), images_->both()).ok());
  PumpAll();
  CloseDisk();
  EXPECT_EQ(images_->image().size(), file_bytes - 2 * kBlock);
  EXPECT_TRUE(Await(Check(images_->image()), images_->image())->clean());
  OpenDisk();
  EXPECT_EQ(Filled(kBlock, 4096), 1);
  EXPECT_EQ(Filled(2 * kBlock, kBlock), 0);
  CloseDisk();
}

// The host tells of data that it couldn't write once, and forgets the data.
TEST_F(VhdxDiskTest, FlushesTellOfOneThatFailedInTheBackground) {
  ASSERT_NO_FATAL_FAILURE(OpenToFailTheNextFlush());
  ASSERT_TRUE(WriteBytes(kBlock * kFreedForACommit, 4096, 2).ok());
  ASSERT_NO_FATAL_FAILURE(FlushInTheBackground());
  ExpectLost();
}

// Stores to mapped pages of the file may have been lost with it.
TEST_F(VhdxDiskTest, AFlushThatFailedInTheBackgroundIsToldOfMappedPages) {
  ASSERT_NO_FATAL_FAILURE(OpenToFailTheNextFlush());
  ASSERT_NO_FATAL_FAILURE(FlushInTheBackground());
  const Disk::MappedSync told = Await(disk_->SyncMapped(), images_->both());
  EXPECT_TRUE(absl::IsDataLoss(told.status)) << told.status;
  EXPECT_TRUE(told.stores_lost);
  ExpectLost();
}

TEST_F(VhdxDiskTest, ClosingTellsOfAFlushThatFailedInTheBackground) {
  ASSERT_NO_FATAL_FAILURE(OpenToFailTheNextFlush());
  ASSERT_NO_FATAL_FAILURE(FlushInTheBackground());
  EXPECT_TRUE(absl::IsDataLoss(Await(disk_->Close(), images_->both())));
  disk_.reset();
  // As a clean image all the same.
  EXPECT_TRUE(CurrentHeader().log_guid.is_zero());
  EXPECT_TRUE(Await(Check(images_->image()), images_->image())->sound());
}

TEST_F(VhdxDiskTest, AFlushTellsOfAHeaderThatWasNotFlushed) {
  Make({});
  OpenDisk();
  FailFlush(1);
  EXPECT_TRUE(absl::IsDataLoss(WriteBytes(0, 4096, 1)));
  ExpectLost();
}

// Whichever of them the storage told.
TEST_F(VhdxDiskTest, AllFlushesInFlightTellOfOneThatFailed) {
  // The first one's flush of the file, and the one that the two others share.
  for (int failing = 0; failing < 2; ++failing) {
    SCOPED_TRACE(failing);
    Make({});
    OpenDisk();
    ASSERT_TRUE(WriteBytes(0, 4096, 1).ok());
    ASSERT_TRUE(Await(Flush(*disk_), images_->both()).ok());
    PumpAll();
    FailFlush(failing);
    std::vector<std::unique_ptr<Pending>> flushes;
    for (int i = 0; i < 3; ++i) {
      flushes.push_back(std::make_unique<Pending>(Operation::kFlush, 0, std::span<uint8_t>()));
      disk_->Submit(*flushes.back());
    }
    PumpAll();
    // Those that were answered before it failed had nothing to tell.
    int told = 0;
    for (const auto& flush : flushes) told += flush->status->ok() ? 0 : 1;
    EXPECT_EQ(told, 3 - failing);
    ExpectLost();
  }
}

TEST_F(VhdxDiskTest, AFlushThatFailedIsNotForgotten) {
  Make({});
  OpenDisk();
  ASSERT_TRUE(WriteBytes(0, 4096, 1).ok());
  FailFlush(0);
  ExpectLost();
}

TEST_F(VhdxDiskTest, NothingReachesTheFileOnceItSettled) {
  for (const Type type : {Type::kFixed, Type::kDynamic, Type::kDifferencing}) {
    for (uint64_t seed = 1; seed < 20; ++seed) {
      Make({.type = type, .disk_bytes = 100 * kBlock, .seed = seed});
      OpenDisk();
      const auto settled = [this] {
        ASSERT_TRUE(Await(Settle(*disk_), images_->both()).ok());
        counts_.clear();
        Count();
        EXPECT_EQ(images_->image().waiting(), 0U);
        PumpAll();
        EXPECT_TRUE(counts_.empty());
      };
      for (uint64_t block = 0; block < kFreedForACommit; ++block) {
        ASSERT_TRUE(WriteBytes(block * kBlock, block % 2 == 0 ? kBlock : 4096, 1).ok());
      }
      ASSERT_TRUE(Await(Flush(*disk_), images_->both()).ok());
      settled();
      // A few, which the flush gives back; and enough for a commit that nobody asks for.
      ASSERT_TRUE(Await(Discard(*disk_, 0, 4 * kBlock), images_->both()).ok());
      ASSERT_TRUE(Await(Flush(*disk_), images_->both()).ok());
      settled();
      ASSERT_TRUE(WriteBytes(0, 4 * kBlock, 2).ok());
      ASSERT_TRUE(Await(Discard(*disk_, 0, kFreedForACommit * kBlock), images_->both()).ok());
      settled();
      EXPECT_EQ(Filled(kBlock, 4096), type == Type::kFixed ? 2 : 0);
      CloseDisk();
    }
  }
}

TEST_F(VhdxDiskTest, SixtyFourTebibytesOpenLikeOneGibibyte) {
  std::array<int, 2> reads{};
  std::array<size_t, 2> resident{};
  for (const int which : {0, 1}) {
    Make({.block_bytes = 1 << 20, .disk_bytes = which == 0 ? uint64_t{1} << 30 : kMaxDiskBytes});
    EXPECT_LT(images_->image().resident_bytes(), 1U << 20);
    counts_.clear();
    Count();
    OpenDisk();
    const uint64_t last = disk_->geometry().size_bytes - 4096;
    EXPECT_EQ(Filled(last, 4096), 0);
    ASSERT_TRUE(WriteBytes(last, 4096, 3).ok());
    EXPECT_EQ(Filled(last, 4096), 3);
    reads[which] = counts_[Operation::kRead];
    for (const Fact& fact : disk_->Facts()) {
      if (fact.name == "table_bytes_in_memory") resident[which] = std::get<uint64_t>(fact.value);
    }
    CloseDisk();
  }
  EXPECT_EQ(reads[0], reads[1]);
  EXPECT_EQ(resident[0], resident[1]);
}

TEST_F(VhdxDiskTest, MapsBlocksAndHoles) {
  Make({.type = Type::kDifferencing});
  OpenDisk();
  ASSERT_TRUE(WriteBytes(kBlock, kBlock, 3).ok());
  ASSERT_TRUE(WriteBytes(2 * kBlock, 4096, 3).ok());
  ASSERT_TRUE(Await(WriteZeroes(*disk_, 3 * kBlock, kBlock), images_->both()).ok());
  const auto presence = [this](uint64_t offset) {
    const auto found = Await(disk_->FindPresence(offset), images_->both());
    CHECK_OK(found.status());
    return std::pair(found->kind, found->length);
  };
  using Kind = Presence::Kind;
  EXPECT_EQ(presence(0), std::pair(Kind::kParent, kBlock));
  EXPECT_EQ(presence(kBlock), std::pair(Kind::kHere, kBlock));
  EXPECT_EQ(presence(2 * kBlock), std::pair(Kind::kHere, uint64_t{4096}));
  EXPECT_EQ(presence(2 * kBlock + 4096), std::pair(Kind::kParent, kBlock - 4096));
  EXPECT_EQ(presence(3 * kBlock), std::pair(Kind::kZero, kBlock));
  EXPECT_EQ(presence(4 * kBlock + 512), std::pair(Kind::kParent, 5 * kBlock - 512));
  const auto extent = [this](uint64_t offset) {
    const auto found = Await(disk_->MapExtent(offset), images_->both());
    CHECK_OK(found.status());
    return std::pair(found->kind, found->length);
  };
  // Memory has no descriptor.
  EXPECT_EQ(extent(kBlock), std::pair(Extent::Kind::kOpaque, kBlock));
  EXPECT_EQ(extent(3 * kBlock + 512), std::pair(Extent::Kind::kZero, kBlock - 512));
  EXPECT_TRUE(absl::IsOutOfRange(
      Await(disk_->MapExtent(disk_->geometry().size_bytes), images_->both()).status()));
  CloseDisk();
}

// Sector bitmaps' entries lie among those of the blocks.
TEST_F(VhdxDiskTest, BlocksWithoutContentsAreOneRun) {
  constexpr uint64_t kLargeBlock = uint64_t{256} << 20;
  Make({.block_bytes = kLargeBlock, .sector_bytes = 4096, .disk_bytes = 300 * kLargeBlock - 4096});
  OpenDisk();
  ASSERT_TRUE(Await(WriteZeroes(*disk_, 290 * kLargeBlock, kLargeBlock), images_->both()).ok());
  ASSERT_TRUE(WriteBytes(200 * kLargeBlock, 4096, 3).ok());
  const auto end_of_run = [this](uint64_t offset) {
    const auto presence = Await(disk_->FindPresence(offset), images_->both());
    const auto extent = Await(disk_->MapExtent(offset), images_->both());
    CHECK(presence.ok() && extent.ok());
    EXPECT_EQ(presence->length, extent->length);
    return (offset + presence->length + kLargeBlock - 1) / kLargeBlock;
  };
  EXPECT_EQ(end_of_run(0), 200U);
  EXPECT_EQ(end_of_run(201 * kLargeBlock - 4096), 201U);
  EXPECT_EQ(end_of_run(201 * kLargeBlock), 300U);
  EXPECT_EQ(end_of_run(299 * kLargeBlock), 300U);
  CloseDisk();
}

TEST_F(VhdxDiskTest, AWhollyWrittenBlockNeedsItsBitmapNoMore) {
  Make({.type = Type::kDifferencing});
  OpenDisk();
  for (uint64_t at = 0; at < kBlock; at += 65536) {
    ASSERT_TRUE(WriteBytes(at, 65536, 9).ok());
  }
  EXPECT_EQ(Await(disk_->FindPresence(0), images_->both())->length, kBlock);
  Count();
  ASSERT_TRUE(WriteBytes(4096, 4096, 8).ok());
  EXPECT_EQ(counts_[Operation::kWrite], 1);
  CloseDisk();
}

// A chain of eight, each with its own block, and one with a sector in all of them.
TEST(VhdxChainTest, EightLevels) {
  constexpr int kLevels = 8;
  std::vector<std::unique_ptr<MemoryStorage>> files;
  std::vector<MemoryStorage*> all;
  std::function<Task<absl::StatusOr<std::unique_ptr<Disk>>>(size_t, bool)> open =
      [&](size_t level, bool read_only) {
        OpenOptions options;
        options.read_only = read_only;
        options.open_parent = [&open, level](const ParentReference&) {
          return open(level - 1, true);
        };
        return Open(std::make_unique<BorrowedStorage>(*files[level]), options);
      };
  Guid linkage;
  for (size_t level = 0; level < kLevels; ++level) {
    files.push_back(std::make_unique<MemoryStorage>(MemoryStorage::Options{.seed = level + 1}));
    all.push_back(files.back().get());
    CreateOptions create;
    create.size_bytes = 20 * kBlock;
    create.block_size_bytes = kBlock;
    create.type = level == 0 ? Type::kDynamic : Type::kDifferencing;
    create.parent.relative_path = "x.vhdx";
    create.parent.linkage = linkage;
    ASSERT_TRUE(Await(Create(*files.back(), create), *files.back()).ok());
    auto disk = Await(open(level, false), std::span<MemoryStorage* const>(all));
    ASSERT_TRUE(disk.ok()) << disk.status();
    const std::vector<uint8_t> bytes(4096, static_cast<uint8_t>(level + 1));
    for (const uint64_t offset : {level * kBlock, 10 * kBlock + level * 4096, 12 * kBlock}) {
      ASSERT_TRUE(Await(WriteAt(**disk, offset, std::span<const uint8_t>(bytes)),
                        std::span<MemoryStorage* const>(all))
                      .ok());
    }
    ASSERT_TRUE(Await((*disk)->Close(), std::span<MemoryStorage* const>(all)).ok());
    linkage = *(*disk)->linkage();
  }
  auto disk = Await(open(kLevels - 1, true), std::span<MemoryStorage* const>(all));
  ASSERT_TRUE(disk.ok()) << disk.status();
  std::vector<uint8_t> bytes(20 * kBlock);
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(
        Await(ReadAt(**disk, 0, std::span<uint8_t>(bytes)), std::span<MemoryStorage* const>(all))
            .ok());
    for (size_t level = 0; level < kLevels; ++level) {
      EXPECT_EQ(bytes[level * kBlock], level + 1);
      EXPECT_EQ(bytes[level * kBlock + 4096], 0);
      EXPECT_EQ(bytes[10 * kBlock + level * 4096], level + 1);
    }
    EXPECT_EQ(bytes[12 * kBlock], kLevels);
  }
  ASSERT_TRUE(Await((*disk)->Close(), std::span<MemoryStorage* const>(all)).ok());
}

TEST(VhdxOpenTest, RefusesWhatIsNoImage) {
  MemoryStorage file;
  EXPECT_TRUE(
      absl::IsDataLoss(Await(Open(std::make_unique<BorrowedStorage>(file), {}), file).status()));
  EXPECT_FALSE(*Await(Probe(file), file));
  file.Poke(0, std::vector<uint8_t>(1 << 20, 'v'));
  EXPECT_TRUE(
      absl::IsDataLoss(Await(Open(std::make_unique<BorrowedStorage>(file), {}), file).status()));
}

TEST(VhdxCreateTest, RefusesImpossibleOptions) {
  MemoryStorage file;
  const auto create = [&file](auto change) {
    CreateOptions options;
    options.size_bytes = 1 << 20;
    change(options);
    return Await(Create(file, options), file);
  };
  EXPECT_TRUE(create([](CreateOptions&) {}).ok());
  EXPECT_TRUE(*Await(Probe(file), file));
  for (const auto& change : std::vector<std::function<void(CreateOptions&)>>{
           [](CreateOptions& o) { o.size_bytes = 0; }, [](CreateOptions& o) { o.size_bytes = 513; },
           [](CreateOptions& o) { o.size_bytes = kMaxDiskBytes + 512; },
           [](CreateOptions& o) { o.block_size_bytes = 3 << 20; },
           [](CreateOptions& o) { o.block_size_bytes = 512 << 20; },
           [](CreateOptions& o) { o.logical_sector_bytes = 1024; },
           [](CreateOptions& o) { o.physical_sector_bytes = 0; },
           [](CreateOptions& o) { o.type = Type::kDifferencing; },
           [](CreateOptions& o) {
             o.type = Type::kDifferencing;
             o.parent.relative_path = "/absolute";
             o.parent.linkage = Guid::Random();
           }}) {
    EXPECT_TRUE(absl::IsInvalidArgument(create(change)));
  }
}

}  // namespace
}  // namespace bothy::disk::vhdx
