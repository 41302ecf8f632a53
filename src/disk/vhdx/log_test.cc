// The log: entries, finding the active sequence, replaying it, writing it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "disk/testing/memory_storage.h"
#include "disk/vhdx/crc32c.h"
#include "disk/vhdx/log_replay.h"
#include "disk/vhdx/log_scan.h"
#include "disk/vhdx/log_writer.h"
#include "disk/vhdx/overlay_storage.h"
#include "disk/vhdx/vhdx.h"
#include "support/endian.h"

namespace bothy::disk::vhdx {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const Guid kGuid = Guid::FromFields(1, 2, 3, {4, 5, 6, 7, 8, 9, 10, 11});
constexpr uint64_t kTarget = 8 * kMiB;  // where pages go

std::vector<uint8_t> Page(uint8_t fill) { return std::vector<uint8_t>(kLogSectorBytes, fill); }

class LogTest : public ::testing::Test {
 protected:
  LogTest() { file_.Truncate(9 * kMiB); }

  struct Entry {
    uint64_t sector;
    uint64_t tail;
    uint64_t number;
    std::vector<std::pair<uint64_t, uint8_t>> pages;  // file offset, fill
    Guid guid = kGuid;
    uint64_t flushed = 0;
    uint64_t last = 0;
  };
  static std::vector<uint8_t> Build(const Entry& entry) {
    LogEntryHeader header;
    header.tail = static_cast<uint32_t>(entry.tail * kLogSectorBytes);
    header.sequence_number = entry.number;
    header.log_guid = entry.guid;
    header.flushed_file_offset = entry.flushed;
    header.last_file_offset = entry.last;
    std::vector<std::vector<uint8_t>> pages;
    for (const auto& page : entry.pages) pages.push_back(Page(page.second));
    std::vector<PageWrite> writes;
    for (size_t i = 0; i < pages.size(); ++i) {
      writes.push_back({.file_offset = entry.pages[i].first, .bytes = pages[i].data()});
    }
    return BuildLogEntry(header, writes);
  }
  void Put(uint64_t sector, std::span<const uint8_t> bytes) {
    for (size_t i = 0; i < bytes.size(); i += kLogSectorBytes) {
      file_.Poke(place_.offset + sector++ * kLogSectorBytes % place_.length,
                 bytes.subspan(i, kLogSectorBytes));
    }
  }
  void Put(const Entry& entry) { Put(entry.sector, Build(entry)); }
  // The numbers of the active sequence.
  std::vector<uint64_t> Find() {
    const auto found = Await(FindActiveSequence(file_, place_), file_);
    std::vector<uint64_t> numbers;
    if (!found.ok()) {
      EXPECT_TRUE(absl::IsDataLoss(found.status())) << found.status();
      return numbers;
    }
    for (const LogEntryPlace& entry : *found) numbers.push_back(entry.header.sequence_number);
    return numbers;
  }
  absl::Status Replay() { return Await(ReplayLog(file_, place_, file_), file_); }
  uint8_t At(uint64_t offset) {
    uint8_t byte = 0;
    file_.Peek(offset, {&byte, 1});
    return byte;
  }

  MemoryStorage file_;
  LogPlace place_ = {.offset = kMiB, .length = kMiB, .guid = kGuid};
};

TEST_F(LogTest, AnEmptyLogHasNoSequence) { EXPECT_THAT(Find(), ElementsAre()); }

TEST_F(LogTest, FindsOneEntryThatIsItsOwnTail) {
  Put({.sector = 17, .tail = 17, .number = 9, .pages = {{kTarget, 1}}});
  EXPECT_THAT(Find(), ElementsAre(9));
}

TEST_F(LogTest, FindsTheEntriesFromTheTailOn) {
  Put({.sector = 0, .tail = 0, .number = 4, .pages = {{kTarget, 1}}});
  Put({.sector = 2, .tail = 0, .number = 5, .pages = {{kTarget, 2}}});
  Put({.sector = 4, .tail = 2, .number = 6, .pages = {{kTarget, 3}}});
  EXPECT_THAT(Find(), ElementsAre(5, 6));
}

TEST_F(LogTest, EntriesWrapAround) {
  Put({.sector = 253, .tail = 253, .number = 4, .pages = {{kTarget, 1}}});
  Put({.sector = 255, .tail = 253, .number = 5, .pages = {{kTarget, 2}, {kTarget + 4096, 3}}});
  Put({.sector = 2, .tail = 253, .number = 6, .pages = {{kTarget + 8192, 4}}});
  EXPECT_THAT(Find(), ElementsAre(4, 5, 6));
  ASSERT_TRUE(Replay().ok());
  EXPECT_EQ(At(kTarget), 2);
  EXPECT_EQ(At(kTarget + 4096), 3);
  EXPECT_EQ(At(kTarget + 8192 + 4095), 4);
}

TEST_F(LogTest, EndsBeforeATornEntry) {
  Put({.sector = 0, .tail = 0, .number = 4, .pages = {{kTarget, 1}}});
  const Entry torn = {.sector = 2, .tail = 0, .number = 5, .pages = {{kTarget, 2}, {kMiB * 7, 3}}};
  const std::vector<uint8_t> bytes = Build(torn);
  for (size_t lost = 0; lost < bytes.size(); lost += 512) {
    std::vector<uint8_t> damaged = bytes;
    std::fill_n(damaged.begin() + static_cast<ptrdiff_t>(lost), 512, 0xEE);
    Put(2, damaged);
    EXPECT_THAT(Find(), ElementsAre(4)) << lost;
  }
  Put(2, bytes);
  EXPECT_THAT(Find(), ElementsAre(4, 5));
}

TEST_F(LogTest, IgnoresEntriesOfAnotherLog) {
  Put({.sector = 0, .tail = 0, .number = 4, .pages = {{kTarget, 1}}});
  Put({.sector = 2, .tail = 0, .number = 5, .pages = {{kTarget, 1}}, .guid = Guid::Random()});
  EXPECT_THAT(Find(), ElementsAre(4));
}

TEST_F(LogTest, TheNewestWholeSequenceIsActive) {
  Put({.sector = 100, .tail = 100, .number = 7, .pages = {{kTarget, 1}}});
  Put({.sector = 10, .tail = 10, .number = 40, .pages = {{kTarget, 2}}});
  // Newer still, but its tail is gone.
  Put({.sector = 50, .tail = 48, .number = 90, .pages = {{kTarget, 3}}});
  EXPECT_THAT(Find(), ElementsAre(40));
}

TEST_F(LogTest, ManyDescriptorsTakeMoreSectors) {
  Entry entry = {.sector = 30, .tail = 30, .number = 1, .pages = {}};
  for (uint64_t i = 0; i < 200; ++i) {
    entry.pages.emplace_back(kTarget + i * 4096, static_cast<uint8_t>(i + 1));
  }
  file_.Truncate(9 * kMiB);
  Put(entry);
  EXPECT_THAT(Find(), ElementsAre(1));
  ASSERT_TRUE(Replay().ok());
  for (uint64_t i = 0; i < 200; ++i) ASSERT_EQ(At(kTarget + i * 4096 + 2000), i + 1);
}

TEST_F(LogTest, RestoresTheBytesThatTheSequenceNumberReplaces) {
  std::vector<uint8_t> page(kLogSectorBytes);
  for (size_t i = 0; i < page.size(); ++i) page[i] = static_cast<uint8_t>(i * 7 + 1);
  LogEntryHeader header;
  header.sequence_number = 0x1122334455667788;
  header.log_guid = kGuid;
  const PageWrite write = {.file_offset = kTarget, .bytes = page.data()};
  Put(0, BuildLogEntry(header, std::span(&write, 1)));
  ASSERT_TRUE(Replay().ok());
  std::vector<uint8_t> back(kLogSectorBytes);
  file_.Peek(kTarget, back);
  EXPECT_EQ(back, page);
}

TEST_F(LogTest, ExtendsTheFileToWhatTheLastEntrySays) {
  Put({.sector = 0, .tail = 0, .number = 4, .pages = {{kTarget, 1}}, .last = 20 * kMiB});
  ASSERT_TRUE(Replay().ok());
  EXPECT_EQ(file_.size(), 20 * kMiB);
}

TEST_F(LogTest, RefusesAFileThatWasTruncated) {
  Put({.sector = 0, .tail = 0, .number = 4, .pages = {{kTarget, 1}}, .flushed = 10 * kMiB});
  const absl::Status status = Replay();
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("FlushedFileOffset"));
}

TEST_F(LogTest, WritesNothingWhenOnePlaceIsWrong) {
  for (const uint64_t wrong : {uint64_t{0}, 64 * kKiB, kMiB, uint64_t{1} << 60}) {
    Put({.sector = 0, .tail = 0, .number = 4, .pages = {{kTarget, 1}, {wrong, 2}}});
    const absl::Status status = Replay();
    EXPECT_TRUE(absl::IsDataLoss(status));
    EXPECT_THAT(std::string(status.message()), HasSubstr("Descriptor.FileOffset"));
    EXPECT_EQ(At(kTarget), 0);
  }
}

TEST_F(LogTest, ZeroesWhereADescriptorSaysSo) {
  file_.Poke(kTarget, Page(9));
  file_.Poke(kTarget + 4096, Page(9));
  std::vector<uint8_t> bytes =
      Build({.sector = 0, .tail = 0, .number = 4, .pages = {{kTarget, 1}}});
  bytes.resize(kLogSectorBytes);
  StoreLe(bytes.data() + 8, kLogSectorBytes);
  StoreLe(bytes.data() + 64, uint32_t{0x6F72657A});
  StoreLe(bytes.data() + 68, uint32_t{0});
  StoreLe(bytes.data() + 72, uint64_t{4096});
  StoreLe(bytes.data() + 4, Crc32cWithoutField(bytes, 4));
  Put(0, bytes);
  ASSERT_TRUE(Replay().ok());
  EXPECT_EQ(At(kTarget), 0);
  EXPECT_EQ(At(kTarget + 4096), 9);
}

TEST_F(LogTest, AnOverlayShowsWhatTheFileWouldBe) {
  file_.Poke(kTarget, Page(9));
  file_.Poke(kTarget + 4096, Page(8));
  Put({.sector = 0, .tail = 0, .number = 4, .pages = {{kTarget, 1}}, .last = 12 * kMiB});
  OverlayStorage overlay(file_);
  ASSERT_TRUE(Await(ReplayLog(file_, place_, overlay), file_).ok());
  ASSERT_TRUE(Await(WriteZeroes(overlay, kTarget + 5000, 100), file_).ok());
  std::vector<uint8_t> bytes(3 * 4096);
  ASSERT_TRUE(Await(ReadAt(overlay, kTarget - 4096, std::span<uint8_t>(bytes)), file_).ok());
  EXPECT_EQ(bytes[4095], 0);
  EXPECT_EQ(bytes[4096], 1);
  EXPECT_EQ(bytes[8191], 1);
  EXPECT_EQ(bytes[8192], 8);
  EXPECT_EQ(bytes[4096 + 4999], 8);
  EXPECT_EQ(bytes[4096 + 5000], 0);
  EXPECT_EQ(bytes[4096 + 5100], 8);
  EXPECT_EQ(At(kTarget), 9);
  EXPECT_EQ(overlay.size(), 12 * kMiB);
  EXPECT_EQ(file_.size(), 9 * kMiB);
  ASSERT_TRUE(Await(ReadAt(overlay, 11 * kMiB, std::span<uint8_t>(bytes)), file_).ok());
  EXPECT_EQ(bytes[0], 0);
  EXPECT_TRUE(
      absl::IsOutOfRange(Await(ReadAt(overlay, 12 * kMiB, std::span<uint8_t>(bytes)), file_)));
}

// A log of a few bytes may not have the host fill itself.
TEST_F(LogTest, WhatIsPastTheFilesEndIsRefused) {
  const std::vector<std::pair<uint64_t, uint8_t>> beyond = {{17 * kMiB, 3}};
  Put({.sector = 0, .tail = 0, .number = 4, .pages = beyond, .last = 16 * kMiB});
  const absl::Status refused = Replay();
  EXPECT_TRUE(absl::IsDataLoss(refused)) << refused;
  EXPECT_EQ(file_.size(), 9 * kMiB);
  Put({.sector = 0, .tail = 0, .number = 4, .pages = beyond, .last = 18 * kMiB});
  const absl::Status replayed = Replay();
  EXPECT_TRUE(replayed.ok()) << replayed;
  EXPECT_EQ(file_.size(), 18 * kMiB);
  EXPECT_EQ(At(17 * kMiB), 3);
}

TEST(LogWriterTest, EveryEntryIsFoundAgainRoundTheRing) {
  MemoryStorage file;
  CreateOptions create;
  create.size_bytes = kMiB;
  ASSERT_TRUE(Await(Create(file, create), file).ok());
  file.Truncate(16 * kMiB);
  auto headers = Await(HeaderStore::Load(file), file);
  ASSERT_TRUE(headers.ok());
  LogWriter log(file, *headers);
  for (uint64_t number = 1; number <= 60; ++number) {
    std::vector<std::vector<uint8_t>> pages;
    std::vector<PageWrite> writes;
    const size_t count = number % 3 == 0 ? log.max_pages() : number;
    for (size_t i = 0; i < count; ++i) pages.push_back(Page(static_cast<uint8_t>(number)));
    for (size_t i = 0; i < count; ++i) {
      writes.push_back({.file_offset = kTarget + i * 4096, .bytes = pages[i].data()});
    }
    ASSERT_TRUE(Await(log.Append(writes, {.flushed = kTarget, .last = 16 * kMiB}), file).ok());
    EXPECT_EQ(log.last_entry(), number);
    const Header& header = headers->current();
    ASSERT_FALSE(header.log_guid.is_zero());
    const LogPlace place = {
        .offset = header.log_offset, .length = header.log_length, .guid = header.log_guid};
    const auto active = Await(FindActiveSequence(file, place), file);
    ASSERT_TRUE(active.ok()) << active.status();
    EXPECT_EQ(active->back().header.sequence_number, number);
    EXPECT_EQ(active->front().header.sequence_number, number == 1 ? 1 : number - 1);
    // Those of before are in their places, these not yet.
    log.AppliedUpTo(number - 1);
  }
  log.AppliedUpTo(60);
  ASSERT_TRUE(Await(log.Finish(), file).ok());
  EXPECT_TRUE(headers->current().log_guid.is_zero());
}

}  // namespace
}  // namespace bothy::disk::vhdx
