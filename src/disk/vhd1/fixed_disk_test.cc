#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk/borrowed_storage.h"
#include "disk/testing/crash_recorder.h"
#include "disk/testing/every_crash.h"
#include "disk/testing/memory_storage.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {
namespace {

// The host tells one flush of the file only; the guest may wait for the other one.
TEST(FixedDiskTest, AFlushThatFailsFailsAllThatAreInFlight) {
  MemoryStorage memory;
  const CreateOptions options = {.size_bytes = 1 << 20, .type = Type::kFixed};
  ASSERT_TRUE(Await(Create(memory, options), memory).ok());
  auto disk = Await(Open(std::make_unique<BorrowedStorage>(memory), OpenOptions()), memory);
  ASSERT_TRUE(disk.ok()) << disk.status();
  int flushes = 0;
  memory.on_request = [&flushes](const Request& request) {
    if (request.operation != Operation::kFlush) return absl::OkStatus();
    return flushes++ == 0 ? absl::DataLossError("EIO") : absl::OkStatus();
  };
  std::vector<absl::Status> told;
  for (int i = 0; i < 3; ++i) {
    Start(Flush(**disk), [&told](absl::Status status) { told.push_back(std::move(status)); });
  }
  while (memory.Pump()) {
  }
  ASSERT_EQ(told.size(), 3U);
  for (const absl::Status& status : told) EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_EQ(flushes, 2);
  EXPECT_TRUE(absl::IsDataLoss(Await(Flush(**disk), memory)));
  EXPECT_TRUE(absl::IsDataLoss(Await((*disk)->Close(), memory)));
}

// Resizing that is cut off anywhere: the image opens with the old size or the new one, and has the
// right bytes; the same call again, if need be, finishes it.
class FixedResizeTest : public testing::Test {
 protected:
  static constexpr uint64_t kBytes = 64 << 10;

  static void Make(MemoryStorage& image) {
    const CreateOptions options = {.size_bytes = kBytes, .type = Type::kFixed};
    ASSERT_TRUE(Await(Create(image, options), image).ok());
    for (uint64_t at = 0; at < kBytes; at += 512) image.Poke(at, Sector(at));
  }
  static std::vector<uint8_t> Sector(uint64_t at) {
    return std::vector<uint8_t>(512, static_cast<uint8_t>(at / 512 % 200 + 1));
  }
  // The footer is `bytes` farther than where the disk ends, and there is rubbish before it.
  static void MoveFooter(MemoryStorage& image, uint64_t bytes) {
    std::vector<uint8_t> footer(512);
    image.Peek(kBytes, footer);
    image.Poke(kBytes, std::vector<uint8_t>(bytes, 0xEE));
    image.Poke(kBytes + bytes, footer);
  }
  static void ExpectWhole(MemoryStorage& image, uint64_t old_size, uint64_t new_size) {
    auto disk = Await(Open(std::make_unique<BorrowedStorage>(image), OpenOptions()), image);
    ASSERT_TRUE(disk.ok()) << disk.status();
    const uint64_t size = (*disk)->geometry().size_bytes;
    ASSERT_TRUE(size == old_size || size == new_size) << size;
    std::vector<uint8_t> bytes(size);
    ASSERT_TRUE(Await(ReadAt(**disk, 0, bytes), image).ok());
    for (uint64_t at = 0; at < size; at += 512) {
      const std::vector<uint8_t> expected = at < old_size ? Sector(at) : std::vector<uint8_t>(512);
      ASSERT_TRUE(std::ranges::equal(std::span(bytes).subspan(at, 512), expected)) << at;
    }
    ASSERT_TRUE(Await((*disk)->Close(), image).ok());
  }
  static void CutOffEverywhere(MemoryStorage& image, uint64_t new_size) {
    const ResizeOptions resize = {.size_bytes = new_size, .discard_data = true};
    CrashRecorder recorder(image);
    ASSERT_TRUE(Await(Resize(recorder, resize), image).ok());
    ForEachCrash(recorder, {}, 6, [&](MemoryStorage& crashed) {
      ASSERT_NO_FATAL_FAILURE(ExpectWhole(crashed, kBytes, new_size));
      ASSERT_TRUE(Await(Resize(crashed, resize), crashed).ok());
      ASSERT_NO_FATAL_FAILURE(ExpectWhole(crashed, std::min(kBytes, new_size), new_size));
      EXPECT_EQ(crashed.size(), new_size + 512);
      const auto report = Await(Check(crashed), crashed);
      ASSERT_TRUE(report.ok());
      EXPECT_TRUE(report->clean());
      EXPECT_EQ(report->leaked_bytes, 0U);
    });
  }
};

TEST_F(FixedResizeTest, LeavesAGoodImageWhereverItIsCutOff) {
  for (const uint64_t size : {kBytes - 512, kBytes / 2, kBytes + 512, kBytes + 1024, 3 * kBytes}) {
    SCOPED_TRACE(size);
    MemoryStorage image;
    Make(image);
    CutOffEverywhere(image, size);
  }
}

// As Virtual PC wrote before 2004.
TEST_F(FixedResizeTest, TakesFootersOf511Bytes) {
  for (const uint64_t size : {kBytes / 2, kBytes + 512, 3 * kBytes}) {
    SCOPED_TRACE(size);
    MemoryStorage image;
    Make(image);
    image.Truncate(image.size() - 1);
    CutOffEverywhere(image, size);
  }
}

// Whole sectors and none.
TEST_F(FixedResizeTest, TakesRoomBehindTheDisk) {
  for (const uint64_t room : {100, 512, 1024, 1300}) {
    for (const uint64_t size :
         {kBytes - 512, kBytes / 2, kBytes + 512, kBytes + 1024, kBytes + 1536, 3 * kBytes}) {
      SCOPED_TRACE(absl::StrCat(room, " bytes, to ", size));
      MemoryStorage image;
      Make(image);
      MoveFooter(image, room);
      CutOffEverywhere(image, size);
    }
  }
}

}  // namespace
}  // namespace bothy::disk::vhd1
