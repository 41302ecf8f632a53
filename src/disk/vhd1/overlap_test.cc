// Requests that cross: late writes to blocks that are discarded, first writes that share a block,
// a host that is full.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "disk/borrowed_storage.h"
#include "disk/testing/memory_storage.h"
#include "disk/testing/random_load.h"
#include "disk/vhd1/vhd1.h"

namespace bothy::disk::vhd1 {
namespace {

constexpr uint64_t kDiskBytes = 8 << 20;

// Keeps requests that `hold` picks, until they are let go.
class HoldingStorage final : public Storage {
 public:
  explicit HoldingStorage(MemoryStorage& memory) : memory_(memory) {}
  void Submit(Request& request) override {
    if (hold && hold(request)) {
      held_.push_back(&request);
    } else {
      memory_.Submit(request);
    }
  }
  void LetGo() {
    hold = nullptr;
    for (Request* request : std::exchange(held_, {})) memory_.Submit(*request);
  }
  [[nodiscard]] size_t held() const { return held_.size(); }
  [[nodiscard]] uint64_t size() const override { return memory_.size(); }
  Task<absl::Status> Resize(uint64_t bytes) override { return memory_.Resize(bytes); }
  absl::Status Refresh() override { return absl::OkStatus(); }
  [[nodiscard]] const std::string& path() const override { return memory_.path(); }
  [[nodiscard]] bool read_only() const override { return false; }
  [[nodiscard]] uint32_t logical_block_bytes() const override { return 512; }
  [[nodiscard]] uint32_t physical_block_bytes() const override { return 4096; }
  [[nodiscard]] int fd() const override { return -1; }

  std::function<bool(const Request&)> hold;

 private:
  MemoryStorage& memory_;
  std::vector<Request*> held_;
};

class OverlapTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const CreateOptions options = {.size_bytes = kDiskBytes, .block_size_bytes = kMinBlockBytes};
    ASSERT_TRUE(Await(Create(memory_, options), memory_).ok());
    auto disk = Await(Open(std::make_unique<BorrowedStorage>(holding_), OpenOptions()), memory_);
    ASSERT_TRUE(disk.ok());
    disk_ = *std::move(disk);
  }
  void Write(uint64_t block, uint8_t value) {
    const std::vector<uint8_t> bytes(kMinBlockBytes, value);
    ASSERT_TRUE(Await(WriteAt(*disk_, block * kMinBlockBytes, bytes), memory_).ok());
  }
  void ExpectAll(uint64_t block, uint8_t value) {
    std::vector<uint8_t> bytes(kMinBlockBytes);
    ASSERT_TRUE(Await(ReadAt(*disk_, block * kMinBlockBytes, bytes), memory_).ok());
    EXPECT_TRUE(std::ranges::all_of(bytes, [value](uint8_t byte) { return byte == value; }));
  }
  void Close() {
    ASSERT_TRUE(Await(disk_->Close(), memory_).ok());
    const auto report = Await(Check(memory_), memory_);
    ASSERT_TRUE(report.ok());
    EXPECT_TRUE(report->sound());
  }

  MemoryStorage memory_{{.path = "a.vhd", .immediate = true}};
  HoldingStorage holding_{memory_};
  std::unique_ptr<Disk> disk_;
};

TEST_F(OverlapTest, ALateWriteDoesNotReachTheBlockThatGotItsRoom) {
  Write(0, 1);
  Write(1, 1);
  ASSERT_TRUE(Await(Flush(*disk_), memory_).ok());
  holding_.hold = [](const Request& request) { return request.operation == Operation::kWrite; };
  const std::vector<uint8_t> late(kMinBlockBytes, 9);
  bool done = false;
  Start(WriteAt(*disk_, 0, std::span<const uint8_t>(late)), [&done](const absl::Status& status) {
    EXPECT_TRUE(status.ok());
    done = true;
  });
  ASSERT_EQ(holding_.held(), 1U);
  holding_.hold = nullptr;
  ASSERT_TRUE(Await(Discard(*disk_, 0, kMinBlockBytes), memory_).ok());
  ASSERT_TRUE(Await(Flush(*disk_), memory_).ok());
  for (uint64_t block = 2; block < 10; ++block) Write(block, static_cast<uint8_t>(block));
  ASSERT_FALSE(done);
  holding_.LetGo();
  ASSERT_TRUE(done);
  for (uint64_t block = 2; block < 10; ++block) ExpectAll(block, static_cast<uint8_t>(block));
  ExpectAll(1, 1);
  Close();
}

TEST_F(OverlapTest, FreedRoomIsUsedAgainWithinTheSession) {
  for (uint64_t block = 0; block < 8; ++block) Write(block, 1);
  ASSERT_TRUE(Await(Flush(*disk_), memory_).ok());
  const uint64_t size = memory_.size();
  for (int round = 0; round < 20; ++round) {
    for (uint64_t block = 0; block < 8; ++block) {
      ASSERT_TRUE(Await(Discard(*disk_, block * kMinBlockBytes, kMinBlockBytes), memory_).ok());
      ExpectAll(block, 0);
    }
    ASSERT_TRUE(Await(Flush(*disk_), memory_).ok());
    for (uint64_t block = 0; block < 8; ++block) {
      // The rest of a block is zero, whatever its room held before.
      const std::vector<uint8_t> bytes(512, 3);
      ASSERT_TRUE(Await(WriteAt(*disk_, block * kMinBlockBytes, bytes), memory_).ok());
      std::vector<uint8_t> rest(kMinBlockBytes - 512);
      ASSERT_TRUE(Await(ReadAt(*disk_, block * kMinBlockBytes + 512, rest), memory_).ok());
      EXPECT_TRUE(std::ranges::all_of(rest, [](uint8_t byte) { return byte == 0; }));
      Write(block, 1);
    }
  }
  EXPECT_EQ(memory_.size(), size);
  for (uint64_t block = 0; block < 8; ++block) {
    ASSERT_TRUE(Await(Discard(*disk_, block * kMinBlockBytes, kMinBlockBytes), memory_).ok());
  }
  Close();
  // Nothing is left of it.
  EXPECT_LT(memory_.size(), 16U << 10);
}

TEST_F(OverlapTest, AnotherSessionGivesBackWhatItDiscards) {
  for (uint64_t block = 0; block < 8; ++block) Write(block, 1);
  Close();
  const uint64_t size = memory_.size();
  auto disk = Await(Open(std::make_unique<BorrowedStorage>(holding_), OpenOptions()), memory_);
  ASSERT_TRUE(disk.ok());
  disk_ = *std::move(disk);
  for (uint64_t block = 2; block < 8; ++block) {
    ASSERT_TRUE(Await(Discard(*disk_, block * kMinBlockBytes, kMinBlockBytes), memory_).ok());
  }
  Close();
  EXPECT_LT(memory_.size(), size - uint64_t{5} * kMinBlockBytes);
  const auto report = Await(Check(memory_), memory_);
  EXPECT_TRUE(report->clean());
}

TEST_F(OverlapTest, FirstWritesOfOneBlockShareIt) {
  holding_.hold = [](const Request& request) { return request.operation == Operation::kFlush; };
  int done = 0;
  std::vector<std::vector<uint8_t>> bytes;
  for (uint8_t i = 0; i < 16; ++i) bytes.emplace_back(512, static_cast<uint8_t>(i + 1));
  for (uint64_t i = 0; i < 16; ++i) {
    Start(WriteAt(*disk_, i * 512, std::span<const uint8_t>(bytes[i])),
          [&done](const absl::Status& status) {
            EXPECT_TRUE(status.ok());
            ++done;
          });
  }
  EXPECT_EQ(done, 0);
  EXPECT_EQ(holding_.held(), 1U);
  holding_.LetGo();
  EXPECT_EQ(done, 16);
  for (uint64_t i = 0; i < 16; ++i) {
    std::vector<uint8_t> read(512);
    ASSERT_TRUE(Await(ReadAt(*disk_, i * 512, read), memory_).ok());
    EXPECT_EQ(read, bytes[i]);
  }
  Close();
  const auto report = Await(Check(memory_), memory_);
  EXPECT_EQ(report->blocks_allocated, 1U);
}

TEST(FullHostTest, WritesFailAndTheImageStaysGood) {
  for (uint64_t room = 0; room < 4; ++room) {
    MemoryStorage memory({.path = "a.vhd",
                          .immediate = false,
                          .seed = room + 1,
                          .max_bytes = 16384 + room * 1'300'000});
    const CreateOptions options = {.size_bytes = kDiskBytes, .block_size_bytes = kMinBlockBytes};
    ASSERT_TRUE(Await(Create(memory, options), memory).ok());
    auto disk = Await(Open(std::make_unique<BorrowedStorage>(memory), OpenOptions()), memory);
    ASSERT_TRUE(disk.ok());
    SectorHistory history(kDiskBytes / 512);
    RandomLoad load(**disk, history, {&memory}, {.seed = room, .allow_errors = true});
    EXPECT_EQ(load.Run(400), "");
    EXPECT_GT(load.errors(), 0U);
    EXPECT_EQ(load.Verify(), "");
    EXPECT_TRUE(Await((*disk)->Close(), memory).ok());
    const auto report = Await(Check(memory), memory);
    ASSERT_TRUE(report.ok());
    EXPECT_TRUE(report->sound());
  }
}

TEST(FailingHostTest, ErrorsOfAnyAccessLeaveTheImageGood) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    MemoryStorage memory({.path = "a.vhd", .immediate = false, .seed = seed});
    const CreateOptions options = {.size_bytes = kDiskBytes, .block_size_bytes = kMinBlockBytes};
    ASSERT_TRUE(Await(Create(memory, options), memory).ok());
    auto disk = Await(Open(std::make_unique<BorrowedStorage>(memory), OpenOptions()), memory);
    ASSERT_TRUE(disk.ok());
    SectorHistory history(kDiskBytes / 512);
    std::mt19937_64 random(seed);
    bool failing = true;
    bool lost = false;  // a flush failed
    memory.on_request = [&](const Request& request) {
      if (!failing || random() % 10 != 0) return absl::OkStatus();
      lost |= request.operation == Operation::kFlush;
      return absl::InternalError("the host failed");
    };
    RandomLoad load(**disk, history, {&memory}, {.seed = seed, .allow_errors = true});
    EXPECT_EQ(load.Run(200), "");
    EXPECT_GT(load.errors(), 0U);
    failing = false;
    EXPECT_EQ(load.Verify(), "");
    EXPECT_EQ(Await(Flush(**disk), memory).ok(), !lost);
    EXPECT_EQ(Await((*disk)->Close(), memory).ok(), !lost);
    const auto report = Await(Check(memory), memory);
    ASSERT_TRUE(report.ok());
    EXPECT_TRUE(report->sound()) << seed;
    auto again = Await(Open(std::make_unique<BorrowedStorage>(memory), OpenOptions()), memory);
    ASSERT_TRUE(again.ok());
    RandomLoad after(**again, history, {&memory}, {});
    EXPECT_EQ(after.Verify(), "") << seed;
  }
}

}  // namespace
}  // namespace bothy::disk::vhd1
