// What a dynamic image does on its own: its errors reach the guest, and it can be waited for.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "disk/borrowed_storage.h"
#include "disk/testing/memory_storage.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {
namespace {

constexpr uint64_t kBlocks = 2048;

class BackgroundTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const CreateOptions options = {.size_bytes = kBlocks * kMinBlockBytes,
                                   .block_size_bytes = kMinBlockBytes};
    ASSERT_TRUE(Await(Create(memory_, options), memory_).ok());
    auto disk = Await(Open(std::make_unique<BorrowedStorage>(memory_), OpenOptions()), memory_);
    ASSERT_TRUE(disk.ok());
    disk_ = *std::move(disk);
    memory_.on_request = [this](const Request& request) {
      if (request.operation != Operation::kFlush || failing_flushes_ == 0) return absl::OkStatus();
      --failing_flushes_;
      return absl::InternalError("the host lost something");
    };
  }
  // The first sector of a block.
  absl::Status Write(uint64_t block) {
    const std::vector<uint8_t> bytes(512, 7);
    return Await(WriteAt(*disk_, block * kMinBlockBytes, bytes), memory_);
  }
  absl::Status FlushIt() { return Await(Flush(*disk_), memory_); }
  // Blocks are written until the storage has something to do that no request waits for.
  void WriteUntilACommitBegins() {
    uint64_t block = 0;
    while (memory_.waiting() == 0) {
      ASSERT_LT(block, kBlocks);
      ASSERT_TRUE(Write(block++).ok());
    }
  }
  // Until it says so, and nothing reaches the storage afterwards.
  void SettleIt() {
    bool settled = false;
    Start(disk_->Settle(), [&settled] { settled = true; });
    while (!settled) ASSERT_TRUE(memory_.Pump());
    EXPECT_EQ(memory_.waiting(), 0U);
  }
  void PumpAll() {
    while (memory_.Pump()) {
    }
  }
  void Close() {
    ASSERT_TRUE(Await(disk_->Close(), memory_).ok());
    const auto report = Await(Check(memory_), memory_);
    ASSERT_TRUE(report.ok());
    EXPECT_TRUE(report->sound());
  }

  // Of a disk that has lost something: told again, and as far as it is in the program's hands the
  // image is a clean one all the same.
  void CloseAfterALoss() {
    const absl::Status told = Await(disk_->Close(), memory_);
    EXPECT_TRUE(absl::IsInternal(told)) << told;
    const auto report = Await(Check(memory_), memory_);
    ASSERT_TRUE(report.ok());
    EXPECT_TRUE(report->clean());
  }

  Disk::MappedSync Sync() { return Await(disk_->SyncMapped(), memory_); }

  MemoryStorage memory_{{.path = "a.vhd", .immediate = false}};
  std::unique_ptr<Disk> disk_;
  int failing_flushes_ = 0;
};

TEST_F(BackgroundTest, AFlushThatFailedInACommitOfItsOwnFailsThoseThatFollow) {
  WriteUntilACommitBegins();
  failing_flushes_ = 1;
  PumpAll();
  ASSERT_EQ(failing_flushes_, 0);
  for (int i = 0; i < 3; ++i) {
    const absl::Status told = FlushIt();
    EXPECT_TRUE(absl::IsInternal(told)) << told;
  }
  CloseAfterALoss();
}

// Stores to mapped pages of the file may have been lost with it.
TEST_F(BackgroundTest, AFlushThatFailedInACommitOfItsOwnIsToldOfMappedPages) {
  // A commit that fails before its flush has lost nothing.
  ASSERT_TRUE(Write(kBlocks - 1).ok());
  const auto on_request = std::exchange(memory_.on_request, [](const Request& request) {
    return request.operation == Operation::kWrite ? absl::ResourceExhaustedError("full")
                                                  : absl::OkStatus();
  });
  const Disk::MappedSync full = Sync();
  EXPECT_TRUE(absl::IsResourceExhausted(full.status)) << full.status;
  EXPECT_FALSE(full.stores_lost);
  memory_.on_request = on_request;
  EXPECT_TRUE(Sync().status.ok());
  WriteUntilACommitBegins();
  failing_flushes_ = 1;
  PumpAll();
  for (int i = 0; i < 2; ++i) {
    const Disk::MappedSync told = Sync();
    EXPECT_TRUE(absl::IsInternal(told.status)) << told.status;
    EXPECT_TRUE(told.stores_lost);
  }
  CloseAfterALoss();
}

TEST_F(BackgroundTest, AFlushThatFailedInACommitOfItsOwnFailsTheOneUnderWay) {
  WriteUntilACommitBegins();
  failing_flushes_ = 1;
  const absl::Status told = FlushIt();
  EXPECT_TRUE(absl::IsInternal(told)) << told;
  CloseAfterALoss();
}

TEST_F(BackgroundTest, AFlushThatFailedForTheFooterFailsTheNext) {
  ASSERT_TRUE(Write(0).ok());
  ASSERT_TRUE(FlushIt().ok());
  failing_flushes_ = 1;
  uint64_t block = 1;
  while (Write(block).ok()) ASSERT_LT(++block, kBlocks);
  ASSERT_EQ(failing_flushes_, 0);
  const absl::Status told = FlushIt();
  EXPECT_TRUE(absl::IsInternal(told)) << told;
  CloseAfterALoss();
}

TEST_F(BackgroundTest, AFlushThatFailsFailsAllThatAreUnderWay) {
  ASSERT_TRUE(Write(0).ok());
  ASSERT_TRUE(FlushIt().ok());
  ASSERT_TRUE(Write(0).ok());
  failing_flushes_ = 1;
  std::vector<absl::Status> told;
  for (int i = 0; i < 3; ++i) {
    Start(Flush(*disk_), [&told](absl::Status status) { told.push_back(std::move(status)); });
  }
  PumpAll();
  ASSERT_EQ(told.size(), 3U);
  for (const absl::Status& status : told) EXPECT_TRUE(absl::IsInternal(status)) << status;
  CloseAfterALoss();
}

TEST_F(BackgroundTest, AFlushThatFailedFailsClosing) {
  WriteUntilACommitBegins();
  failing_flushes_ = 1;
  PumpAll();
  CloseAfterALoss();
}

TEST_F(BackgroundTest, AfterSettlingNothingReachesTheStorage) {
  SettleIt();  // nothing has to be waited for
  WriteUntilACommitBegins();
  SettleIt();
  EXPECT_TRUE(FlushIt().ok());
  // Discards, whose room is given back.
  int given_back = 0;
  memory_.on_request = [&given_back](const Request& request) {
    if (request.operation == Operation::kWriteZeroes) ++given_back;
    return absl::OkStatus();
  };
  for (uint64_t block = 0; memory_.waiting() == 0; ++block) {
    ASSERT_LT(block, kBlocks);
    ASSERT_TRUE(Await(Discard(*disk_, block * kMinBlockBytes, kMinBlockBytes), memory_).ok());
  }
  given_back = 0;
  SettleIt();
  EXPECT_GT(given_back, 0);
  Close();
}

TEST_F(BackgroundTest, WhatFailsWhileSettlingFailsTheNextFlush) {
  WriteUntilACommitBegins();
  failing_flushes_ = 1;
  SettleIt();
  ASSERT_EQ(failing_flushes_, 0);
  EXPECT_TRUE(absl::IsInternal(FlushIt()));
  CloseAfterALoss();
}

}  // namespace
}  // namespace bothy::disk::vhd1
