#include "disk/raw/raw_disk.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "disk/borrowed_storage.h"
#include "disk/testing/memory_storage.h"

namespace bothy::disk {
namespace {

class RawDiskTest : public ::testing::Test {
 protected:
  void SetUp() override {
    memory_.Truncate(1 << 20);
    auto disk = OpenRawDisk(std::make_unique<BorrowedStorage>(memory_));
    ASSERT_TRUE(disk.ok()) << disk.status();
    disk_ = *std::move(disk);
    memory_.on_request = [this](const Request& request) {
      if (request.operation != Operation::kFlush) return absl::OkStatus();
      return flushes_++ == 0 ? absl::DataLossError("EIO") : absl::OkStatus();
    };
  }

  MemoryStorage memory_;
  std::unique_ptr<Disk> disk_;
  int flushes_ = 0;  // of the file; the first one fails
};

// The host tells one flush of the file only; the guest may wait for the other one.
TEST_F(RawDiskTest, AFlushThatFailsFailsAllThatAreInFlight) {
  std::vector<absl::Status> told;
  for (int i = 0; i < 3; ++i) {
    Start(Flush(*disk_), [&told](absl::Status status) { told.push_back(std::move(status)); });
  }
  while (memory_.Pump()) {
  }
  ASSERT_EQ(told.size(), 3U);
  for (const absl::Status& status : told) EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_EQ(flushes_, 2);
  EXPECT_TRUE(absl::IsDataLoss(Await(Flush(*disk_), memory_)));
  EXPECT_TRUE(absl::IsDataLoss(Await(disk_->Close(), memory_)));
}

TEST_F(RawDiskTest, ClosingTellsOfAFlushThatFails) {
  EXPECT_TRUE(absl::IsDataLoss(Await(disk_->Close(), memory_)));
}

}  // namespace
}  // namespace bothy::disk
