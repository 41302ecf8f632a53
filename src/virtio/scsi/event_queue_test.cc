#include "virtio/scsi/event_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "virtio/testing/driver_queue.h"

namespace bothy::virtio {
namespace {

using testing::DriverQueue;
using Outcome = EventQueue::Outcome;

constexpr uint64_t kBuffers = 0x10000;

class EventQueueTest : public ::testing::Test {
 protected:
  void Attach(bool wants_events = true) {
    events_.Attach(*Virtqueue::Create(*ram_, driver_.setup()), wants_events,
                   [this] { ++interrupts_; });
    ASSERT_TRUE(events_.Resume().ok());
  }
  void GiveBuffer(int index) {
    const std::array<DriverQueue::Buffer, 1> buffer = {
        {{kBuffers + 64 * static_cast<uint64_t>(index), scsi_wire::kEventBytes, true}}};
    ASSERT_TRUE(driver_.Add(buffer).has_value());
    ASSERT_TRUE(events_.OnDoorbell().ok());
  }
  uint64_t Send(uint32_t reason, std::optional<Outcome>& outcome) {
    return events_.Send({.event = 1, .lun = {1, 0, 0x40, 7}, .reason = reason},
                        [&outcome](Outcome how) { outcome = how; });
  }
  uint32_t ReasonIn(int index) {
    return *ram_->ReadObject<uint32_t>(kBuffers + 64 * static_cast<uint64_t>(index) + 12);
  }

  std::unique_ptr<memory::GuestMemory> ram_ = testing::TestRam(4 * memory::kMiB);
  DriverQueue driver_{*ram_, 0x1000, 8};
  EventQueue events_;
  int interrupts_ = 0;
};

TEST_F(EventQueueTest, AnEventIsHandledWhenItsBufferComesBack) {
  Attach();
  GiveBuffer(0);
  GiveBuffer(1);
  std::optional<Outcome> first;
  std::optional<Outcome> second;
  Send(1, first);
  Send(2, second);
  EXPECT_EQ(interrupts_, 2);
  EXPECT_EQ(ReasonIn(0), 1U);
  EXPECT_EQ(ReasonIn(1), 2U);
  EXPECT_FALSE(first.has_value());
  ASSERT_TRUE(driver_.TakeUsed().has_value());
  ASSERT_TRUE(driver_.TakeUsed().has_value());
  GiveBuffer(1);
  EXPECT_FALSE(first.has_value());
  EXPECT_EQ(second, Outcome::kHandled);
  GiveBuffer(0);
  EXPECT_EQ(first, Outcome::kHandled);
}

TEST_F(EventQueueTest, WaitsForABufferAndForTheEndOfAPause) {
  Attach();
  std::optional<Outcome> outcome;
  Send(5, outcome);
  EXPECT_EQ(interrupts_, 0);
  GiveBuffer(0);
  EXPECT_EQ(ReasonIn(0), 5U);
  events_.Pause();
  GiveBuffer(1);
  std::optional<Outcome> paused;
  Send(6, paused);
  EXPECT_EQ(ReasonIn(1), 0U);
  EXPECT_FALSE(outcome.has_value());
  ASSERT_TRUE(events_.Resume().ok());
  EXPECT_EQ(ReasonIn(1), 6U);
}

TEST_F(EventQueueTest, ABufferNeverSeenBeforeAcknowledgesTheOldest) {
  Attach();
  GiveBuffer(0);
  std::optional<Outcome> outcome;
  Send(1, outcome);
  GiveBuffer(3);
  EXPECT_EQ(outcome, Outcome::kHandled);
}

TEST_F(EventQueueTest, WithoutADriverThereIsNobodyToWaitFor) {
  std::optional<Outcome> outcome;
  Send(1, outcome);
  EXPECT_EQ(outcome, Outcome::kNoDriver);
  Attach(/*wants_events=*/false);
  outcome.reset();
  Send(1, outcome);
  EXPECT_EQ(outcome, Outcome::kNoDriver);
}

TEST_F(EventQueueTest, ADriverThatGoesEndsTheWait) {
  Attach();
  GiveBuffer(0);
  std::optional<Outcome> out;
  std::optional<Outcome> waiting;
  Send(1, out);
  Send(2, waiting);
  events_.Detach();
  EXPECT_EQ(out, Outcome::kNoDriver);
  EXPECT_EQ(waiting, Outcome::kNoDriver);
}

TEST_F(EventQueueTest, ACancelledEventIsNotSentAndItsBufferIsNoOthersAnswer) {
  Attach();
  std::optional<Outcome> waiting;
  events_.Cancel(Send(9, waiting));
  EXPECT_EQ(waiting, Outcome::kCancelled);
  GiveBuffer(0);
  GiveBuffer(1);
  EXPECT_EQ(ReasonIn(0), 0U);
  std::optional<Outcome> out;
  const uint64_t id = Send(1, out);
  events_.Cancel(id);
  events_.Cancel(id);
  EXPECT_EQ(out, Outcome::kCancelled);
  std::optional<Outcome> later;
  Send(2, later);
  GiveBuffer(0);
  EXPECT_FALSE(later.has_value());
  GiveBuffer(1);
  EXPECT_EQ(later, Outcome::kHandled);
}

TEST_F(EventQueueTest, RefusesABufferTooSmallForAnEvent) {
  Attach();
  const std::array<DriverQueue::Buffer, 1> buffer = {{{kBuffers, 15, true}}};
  driver_.Add(buffer);
  EXPECT_FALSE(events_.OnDoorbell().ok());
}

}  // namespace
}  // namespace bothy::virtio
