#include "virtio/balloon/balloon_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "support/endian.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/test_transport.h"

namespace bothy::virtio {
namespace {

using balloon::Tag;
using testing::DriverQueue;

constexpr uint64_t kStatisticsFeature = 1 << 1;
constexpr uint64_t kPoisonFeature = 1 << 4;
constexpr uint64_t kReportingFeature = 1 << 5;
constexpr uint64_t kPage = 4096;

class FakeTransport final : public testing::TestTransport {
 public:
  void InterruptQueue(uint16_t queue) override { interrupts.push_back(queue); }
  void NeedsReset(const absl::Status& reason) override { broken.push_back(reason); }
  std::vector<uint16_t> interrupts;
  std::vector<absl::Status> broken;
};

class BalloonDeviceTest : public ::testing::Test {
 protected:
  static constexpr uint16_t kInflate = 0;
  static constexpr uint16_t kDeflate = 1;
  static constexpr uint16_t kStatistics = 2;
  static constexpr uint16_t kReports = 3;
  static constexpr uint64_t kBuffer = 0x80000;
  static constexpr uint64_t kFilled = 0x100000;  // pages with contents, up to the end of RAM
  static constexpr uint64_t kRamBytes = 0x200000;

  BalloonDeviceTest() {
    for (uint64_t at = kFilled; at < kRamBytes; at += kPage) {
      CHECK_OK(memory_->WriteObject(at, at));
    }
    device_.Resume();
  }
  void Activate(uint64_t features = kStatisticsFeature | kReportingFeature, uint16_t count = 4) {
    queues_.clear();
    std::vector<std::unique_ptr<Virtqueue>> queues(5);
    for (uint16_t i = 0; i < count; ++i) {
      const uint64_t base = 0x1000 + i * uint64_t{0x4000};
      CHECK_OK(memory_->Zero(base, 0x4000));
      queues_.emplace_back(*memory_, base, 128);
      queues[i] = *Virtqueue::Create(*memory_, queues_[i].setup());
    }
    device_.Activate(transport_, features, std::move(queues));
  }
  void Offer(uint16_t queue, std::span<const DriverQueue::Buffer> buffers) {
    CHECK(queues_[queue].Add(buffers).has_value());
    device_.OnDoorbell(queue);
  }
  void PutIn(const std::vector<uint32_t>& pages) {
    CHECK_OK(memory_->Write(kBuffer, {reinterpret_cast<const uint8_t*>(pages.data()),
                                      pages.size() * sizeof(uint32_t)}));
    const DriverQueue::Buffer buffer = {
        .gpa = kBuffer, .length = static_cast<uint32_t>(pages.size() * sizeof(uint32_t))};
    Offer(kInflate, {&buffer, 1});
  }
  void Report(uint64_t gpa, uint32_t length, uint16_t queue = kReports) {
    const DriverQueue::Buffer buffer = {.gpa = gpa, .length = length, .writable = true};
    Offer(queue, {&buffer, 1});
  }
  void Say(const std::vector<std::pair<uint16_t, uint64_t>>& statistics) {
    std::vector<uint8_t> bytes(statistics.size() * balloon::kStatisticBytes);
    for (size_t i = 0; i < statistics.size(); ++i) {
      StoreLe(&bytes[i * balloon::kStatisticBytes], statistics[i].first);
      StoreLe(&bytes[i * balloon::kStatisticBytes + 2], statistics[i].second);
    }
    CHECK_OK(memory_->Write(kBuffer, bytes));
    const DriverQueue::Buffer buffer = {.gpa = kBuffer,
                                        .length = static_cast<uint32_t>(bytes.size())};
    Offer(kStatistics, {&buffer, 1});
  }
  // Of those that had contents.
  std::vector<uint64_t> ZeroPages() {
    std::vector<uint64_t> zero;
    for (uint64_t at = kFilled; at < kRamBytes; at += kPage) {
      if (*memory_->ReadObject<uint64_t>(at) == 0) zero.push_back(at);
    }
    return zero;
  }

  std::unique_ptr<memory::GuestMemory> memory_ = testing::TestRam(kRamBytes);
  std::unique_ptr<IoLoop> loop_ = *IoLoop::Create();
  FakeTransport transport_;
  BalloonDevice device_{{.name = "balloon0", .report_free_pages = true}, *memory_, *loop_};
  std::vector<DriverQueue> queues_;
};

TEST_F(BalloonDeviceTest, OffersReportsWhenTheyAreWanted) {
  EXPECT_EQ(device_.type(), 5);
  EXPECT_EQ(device_.features(), 0x36U);
  const BalloonDevice plain({.name = "balloon0"}, *memory_, *loop_);
  EXPECT_EQ(plain.features(), 0x06U);
}

TEST_F(BalloonDeviceTest, TheGuestSaysHowItsMemoryIs) {
  Activate();
  Say({{4, 100}, {6, 300}, {999, 1}});
  EXPECT_EQ(device_.statistics().Get(Tag::kFree), 100U);
  EXPECT_EQ(device_.statistics().Get(Tag::kAvailable), 300U);
  EXPECT_EQ(device_.statistics().Get(Tag::kTotal), std::nullopt);
  // It keeps the buffer until somebody asks.
  EXPECT_FALSE(queues_[kStatistics].TakeUsed().has_value());
  int answers = 0;
  device_.AskStatistics([&answers] { ++answers; });
  device_.AskStatistics([&answers] { ++answers; });
  EXPECT_TRUE(queues_[kStatistics].TakeUsed().has_value());
  EXPECT_FALSE(queues_[kStatistics].TakeUsed().has_value());
  EXPECT_THAT(transport_.interrupts, ::testing::ElementsAre(kStatistics));
  EXPECT_EQ(answers, 0);
  Say({{6, 200}});
  EXPECT_EQ(answers, 2);
  EXPECT_EQ(device_.statistics().Get(Tag::kAvailable), 200U);
  EXPECT_EQ(device_.statistics().Get(Tag::kFree), std::nullopt);
}

TEST_F(BalloonDeviceTest, NobodyWaitsForAGuestThatCannotAnswer) {
  int answers = 0;
  const auto ask = [&] { device_.AskStatistics([&answers] { ++answers; }); };
  ask();
  EXPECT_EQ(answers, 1);  // no driver
  Activate(kReportingFeature);
  ask();
  EXPECT_EQ(answers, 2);  // one without statistics
  device_.Reset([] {});
  Activate();
  ask();
  EXPECT_EQ(answers, 2);  // one that has yet to give its buffer
  // Nor does a guest that never answers hold on to those who ask.
  for (int i = 0; i < 100; ++i) ask();
  EXPECT_EQ(answers, 2 + 101 - 64);
  device_.Quiesce([] {});
  EXPECT_EQ(answers, 2 + 101);
  answers = 3;
  ask();
  EXPECT_EQ(answers, 4);
  device_.Resume();
  ask();
  EXPECT_EQ(answers, 4);
  device_.Reset([] {});
  EXPECT_EQ(answers, 5);
}

TEST_F(BalloonDeviceTest, AResetForgetsWhatTheGuestSaid) {
  Activate();
  Say({{6, 200}});
  device_.Reset([] {});
  EXPECT_EQ(device_.statistics().Get(Tag::kAvailable), std::nullopt);
}

TEST_F(BalloonDeviceTest, PartsAndTooManyStatisticsAreNoHarm) {
  Activate();
  std::vector<std::pair<uint16_t, uint64_t>> many(70, {6, 1});
  many[63].second = 7;
  Say(many);
  EXPECT_EQ(device_.statistics().Get(Tag::kAvailable), 7U);
  const DriverQueue::Buffer part = {.gpa = kBuffer, .length = 9};
  Offer(kStatistics, {&part, 1});
  EXPECT_EQ(device_.statistics().Get(Tag::kAvailable), std::nullopt);
  // The first of two buffers went back.
  EXPECT_TRUE(queues_[kStatistics].TakeUsed().has_value());
  EXPECT_FALSE(queues_[kStatistics].TakeUsed().has_value());
  EXPECT_THAT(transport_.broken, ::testing::IsEmpty());
}

TEST_F(BalloonDeviceTest, WhatIsPutIntoTheBalloonGoesToTheHost) {
  Activate();
  const auto page = [](uint64_t gpa) { return static_cast<uint32_t>(gpa / kPage); };
  PutIn({page(kFilled), page(kFilled) + 1, page(kFilled) + 5, UINT32_MAX, page(kRamBytes)});
  EXPECT_THAT(ZeroPages(), ::testing::ElementsAre(kFilled, kFilled + kPage, kFilled + 5 * kPage));
  EXPECT_TRUE(queues_[kInflate].TakeUsed().has_value());
  PutIn({});
  const DriverQueue::Buffer out = {.gpa = kBuffer, .length = 4};
  Offer(kDeflate, {&out, 1});
  EXPECT_TRUE(queues_[kDeflate].TakeUsed().has_value());
  EXPECT_THAT(transport_.broken, ::testing::IsEmpty());
}

TEST_F(BalloonDeviceTest, TooManyPagesAtOnceBreakIt) {
  Activate();
  const DriverQueue::Buffer buffer = {.gpa = kBuffer, .length = 1025 * 4};
  int answers = 0;
  device_.AskStatistics([&answers] { ++answers; });
  Offer(kInflate, {&buffer, 1});
  EXPECT_THAT(transport_.broken, ::testing::SizeIs(1));
  EXPECT_EQ(answers, 1);
}

// Rings that are zero all of a sudden, under the device's hands.
TEST_F(BalloonDeviceTest, ADriverThatPutsItsOwnRingsInBreaksItselfAlone) {
  Activate();
  PutIn({0x1000 / kPage});
  EXPECT_THAT(transport_.broken, ::testing::SizeIs(1));
  device_.Reset([] {});
  Activate();
  Report(0x1000, 0x4000);
  EXPECT_TRUE(queues_[kReports].TakeUsed().has_value());
  EXPECT_THAT(transport_.broken, ::testing::SizeIs(1));
  const DriverQueue::Buffer buffer = {.gpa = kBuffer, .length = 4};
  Offer(kDeflate, {&buffer, 1});
  EXPECT_TRUE(queues_[kDeflate].TakeUsed().has_value());
}

TEST_F(BalloonDeviceTest, FreePagesThatAreReportedGoToTheHost) {
  Activate();
  // Only whole pages.
  Report(kFilled + 100, 3 * kPage);
  EXPECT_THAT(ZeroPages(), ::testing::ElementsAre(kFilled + kPage, kFilled + 2 * kPage));
  EXPECT_TRUE(queues_[kReports].TakeUsed().has_value());
  Report(kFilled, kPage - 1);
  EXPECT_THAT(ZeroPages(), ::testing::SizeIs(2));
}

TEST_F(BalloonDeviceTest, ReportsComeOnWhateverQueueIsBehindTheStatistics) {
  Activate(kReportingFeature, 3);
  Report(kFilled, kPage, kStatistics);
  EXPECT_THAT(ZeroPages(), ::testing::ElementsAre(kFilled));
  device_.Reset([] {});
  Activate(kStatisticsFeature | kReportingFeature, 5);
  Report(kFilled + kPage, kPage, 4);
  EXPECT_THAT(ZeroPages(), ::testing::SizeIs(2));
}

TEST_F(BalloonDeviceTest, PagesThatTheGuestHasPoisonedAreKept) {
  Activate(kStatisticsFeature | kReportingFeature | kPoisonFeature);
  std::array<uint8_t, 4> poison = {0xAA, 0xAA, 0xAA, 0xAA};
  device_.WriteConfig(12, poison);
  Report(kFilled, kPage);
  EXPECT_THAT(ZeroPages(), ::testing::IsEmpty());
  EXPECT_TRUE(queues_[kReports].TakeUsed().has_value());
  poison = {};
  device_.ReadConfig(12, poison);
  EXPECT_EQ(poison[0], 0xAA);
  device_.ResetConfig();
  Report(kFilled, kPage);
  EXPECT_THAT(ZeroPages(), ::testing::ElementsAre(kFilled));
}

TEST_F(BalloonDeviceTest, OfMemoryThatIsNotRamNothingIsGiven) {
  std::vector<uint8_t> device_memory(2 * kPage, 0x5A);
  ASSERT_TRUE(
      memory_->AddDeviceMemory(uint64_t{1} << 32, device_memory, memory::Access::kWrite).ok());
  Activate();
  Report(uint64_t{1} << 32, 2 * kPage);
  PutIn({1 << 20, (1 << 20) + 1});
  EXPECT_THAT(device_memory, ::testing::Each(0x5A));
  EXPECT_THAT(transport_.broken, ::testing::IsEmpty());
}

TEST_F(BalloonDeviceTest, WhilePausedNothingIsTaken) {
  Activate();
  bool quiet = false;
  device_.Quiesce([&quiet] { quiet = true; });
  EXPECT_TRUE(quiet);
  Report(kFilled, kPage);
  EXPECT_THAT(ZeroPages(), ::testing::IsEmpty());
  device_.Resume();
  EXPECT_THAT(ZeroPages(), ::testing::ElementsAre(kFilled));
}

}  // namespace
}  // namespace bothy::virtio
