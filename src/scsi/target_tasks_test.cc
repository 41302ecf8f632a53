// Task management and resets.
#include <optional>

#include "scsi/testing/target_test.h"

namespace bothy::scsi {
namespace {

class TasksTest : public TargetTest {
 protected:
  TestCommand& Read(uint64_t tag, TaskAttribute attribute = TaskAttribute::kSimple,
                    uint16_t lun = 0) {
    return Begin({.lun = lun,
                  .tag = tag,
                  .attribute = attribute,
                  .cdb = Read10(0, 1),
                  .data_in_bytes = 512});
  }
  void Manage(TaskFunction function, uint64_t tag = 0, uint16_t lun = 0) {
    response_.reset();
    target_.Manage(function, lun, tag, [this](TaskResponse response) {
      EXPECT_FALSE(response_.has_value());
      response_ = response;
    });
  }
  void ExpectAborted(const TestCommand& command, Outcome outcome = Outcome::kAborted) {
    EXPECT_TRUE(command.done());
    EXPECT_EQ(command.outcome, outcome);
    EXPECT_EQ(command.residual, 512U);
    EXPECT_EQ(command.data_in_written, 0U);
  }

  disk::FakeDisk& disk_ = Attach(0);
  std::optional<TaskResponse> response_;
};

TEST_F(TasksTest, AbortingATaskWaitsForItsIoAndForNoOther) {
  const TestCommand& other = Read(1);
  const TestCommand& aborted = Read(2);
  Manage(TaskFunction::kAbortTask, 2);
  EXPECT_FALSE(aborted.done());
  EXPECT_FALSE(response_.has_value());
  disk_.Pump();
  RunPosted();
  ExpectGood(other);
  EXPECT_FALSE(response_.has_value());
  disk_.Pump();
  ExpectAborted(aborted);
  RunPosted();
  EXPECT_EQ(response_, TaskResponse::kComplete);
  EXPECT_EQ(target_.Snapshot()[0].counters.aborted, 1U);
}

TEST_F(TasksTest, AbortingATaskThatHasEndedIsComplete) {
  ExpectGood(Run({.lun = 0, .tag = 1, .cdb = Read10(0, 1), .data_in_bytes = 512}));
  Manage(TaskFunction::kAbortTask, 1);
  EXPECT_EQ(response_, TaskResponse::kComplete);
}

TEST_F(TasksTest, WhatHasNotStartedEndsAtOnce) {
  Read(1);
  const TestCommand& ordered = Read(2, TaskAttribute::kOrdered);
  const TestCommand& behind = Read(3);
  Manage(TaskFunction::kAbortTask, 2);
  ExpectAborted(ordered);
  EXPECT_EQ(response_, TaskResponse::kComplete);
  // What it held up goes on.
  EXPECT_EQ(disk_.storage().waiting(), 2U);
  Settle();
  ExpectGood(behind);
}

// SAM-5, 8.7.3.
TEST_F(TasksTest, AHeadOfQueueCommandPassesThoseThatWait) {
  const TestCommand& running = Read(1);
  const TestCommand& ordered = Read(2, TaskAttribute::kOrdered);
  const TestCommand& simple = Read(3);
  const TestCommand& head = Read(4, TaskAttribute::kHeadOfQueue);
  EXPECT_EQ(disk_.storage().waiting(), 2U);
  disk_.Pump();
  ExpectGood(running);
  // The ordered one waits for it, though it is younger.
  EXPECT_EQ(disk_.storage().waiting(), 1U);
  disk_.Pump();
  ExpectGood(head);
  EXPECT_EQ(disk_.storage().waiting(), 1U);
  disk_.Pump();
  ExpectGood(ordered);
  EXPECT_FALSE(simple.done());
  Settle();
  ExpectGood(simple);
}

TEST_F(TasksTest, AHeadOfQueueCommandGoesBesideAnOrderedOne) {
  const TestCommand& ordered = Read(1, TaskAttribute::kOrdered);
  const TestCommand& simple = Read(2);
  const TestCommand& head = Read(3, TaskAttribute::kHeadOfQueue);
  EXPECT_EQ(disk_.storage().waiting(), 2U);
  disk_.Pump();
  ExpectGood(ordered);
  // Others begin when it has ended.
  EXPECT_EQ(disk_.storage().waiting(), 1U);
  const TestCommand& another = Read(4, TaskAttribute::kHeadOfQueue);
  EXPECT_EQ(disk_.storage().waiting(), 2U);
  disk_.Pump();
  ExpectGood(head);
  EXPECT_EQ(disk_.storage().waiting(), 1U);
  disk_.Pump();
  ExpectGood(another);
  EXPECT_FALSE(simple.done());
  Settle();
  ExpectGood(simple);
}

// One that ends first lets nobody pass the ordered one that goes on.
TEST_F(TasksTest, AHeadOfQueueCommandThatEndsLeavesTheBarrier) {
  Read(1, TaskAttribute::kOrdered);
  const TestCommand& simple = Read(2);
  ExpectGood(Begin({.lun = 0, .attribute = TaskAttribute::kHeadOfQueue, .cdb = {0x00}}));
  EXPECT_EQ(disk_.storage().waiting(), 1U);
  EXPECT_FALSE(simple.done());
  Settle();
  ExpectGood(simple);
}

// COMPARE AND WRITE is atomic whatever its attribute is, and VERIFY has memory of which there is
// one.
TEST_F(TasksTest, AHeadOfQueueCommandWaitsForWhatItNeedsAndForNothingElse) {
  const std::vector<uint8_t> pair(1024);
  const auto compare_and_write = Cdb(0x89, 16).Put8(13, 1);
  const auto verify = Cdb(0x2F, 10).Put16(7, 8);
  const TestCommand& verifying = Begin({.lun = 0, .tag = 1, .cdb = verify});
  const TestCommand& behind = Begin({.lun = 0, .tag = 2, .cdb = verify});
  const TestCommand& head = Begin({.lun = 0,
                                   .tag = 3,
                                   .attribute = TaskAttribute::kHeadOfQueue,
                                   .cdb = compare_and_write,
                                   .data_out = pair});
  const TestCommand& simple = Read(4);
  EXPECT_EQ(disk_.storage().waiting(), 1U);
  Manage(TaskFunction::kQueryTask, 3);
  EXPECT_EQ(response_, TaskResponse::kSucceeded);
  while (!verifying.done()) ASSERT_TRUE(Step());
  EXPECT_EQ(disk_.storage().waiting(), 1U);  // of the one for the head
  // Nothing goes beside it.
  const TestCommand& another = Read(5, TaskAttribute::kHeadOfQueue);
  EXPECT_EQ(disk_.storage().waiting(), 1U);
  while (!head.done()) ASSERT_TRUE(Step());
  ExpectGood(head);
  EXPECT_FALSE(behind.done() || another.done() || simple.done());
  EXPECT_EQ(disk_.storage().waiting(), 1U);
  while (!another.done()) ASSERT_TRUE(Step());
  EXPECT_FALSE(behind.done() || simple.done());
  Settle();
  ExpectGood(behind);
  ExpectGood(simple);
}

TEST_F(TasksTest, AbortingAHeadOfQueueCommandThatWaitsLetsOthersGoOn) {
  const auto verify = Cdb(0x2F, 10).Put16(7, 8);
  Begin({.lun = 0, .tag = 1, .cdb = verify});
  const TestCommand& head =
      Begin({.lun = 0, .tag = 2, .attribute = TaskAttribute::kHeadOfQueue, .cdb = verify});
  const TestCommand& simple = Read(3);
  EXPECT_EQ(disk_.storage().waiting(), 1U);
  Manage(TaskFunction::kAbortTask, 2);
  EXPECT_TRUE(head.done());
  EXPECT_EQ(head.outcome, Outcome::kAborted);
  EXPECT_EQ(response_, TaskResponse::kComplete);
  EXPECT_EQ(disk_.storage().waiting(), 2U);
  Settle();
  ExpectGood(simple);
}

TEST_F(TasksTest, AbortingATaskSetLeavesOtherUnitsAlone) {
  Attach(1, TestDisk("/images/b.img"));
  Run({.lun = 0, .cdb = {0x00}});
  for (const TaskFunction function : {TaskFunction::kAbortTaskSet, TaskFunction::kClearTaskSet}) {
    const TestCommand& a = Read(1);
    const TestCommand& b = Read(1);
    const TestCommand& elsewhere = Read(1, TaskAttribute::kSimple, 1);
    Manage(function);
    Settle();
    ExpectAborted(a);
    ExpectAborted(b);
    ExpectGood(elsewhere);
    EXPECT_EQ(response_, TaskResponse::kComplete);
    ExpectGood(Run({.lun = 0, .cdb = {0x00}}));
  }
}

TEST_F(TasksTest, CommandsThatComeAfterAnAbortAreNotAborted) {
  const TestCommand& before = Read(1);
  Manage(TaskFunction::kAbortTaskSet);
  const TestCommand& after = Read(1);
  Settle();
  ExpectAborted(before);
  ExpectGood(after);
}

TEST_F(TasksTest, AUnitResetResetsWhatTheGuestHasSet) {
  // D_SENSE and no write cache, stopped.
  const std::vector<uint8_t> list = {0, 0, 0, 0, 0x0A, 0x0A, 4, 0x10, 0, 0, 0, 0, 0, 0, 0, 0};
  ExpectGood(Run({.lun = 0, .cdb = Cdb(0x15, 6).Put8(1, 0x10).Put8(4, 16), .data_out = list}));
  const TestCommand& read = Read(1);
  ExpectGood(Begin({.lun = 0, .cdb = Cdb(0x1B, 6).Put8(4, 0x04)}));
  Manage(TaskFunction::kLogicalUnitReset);
  EXPECT_FALSE(response_.has_value());
  Settle();
  ExpectAborted(read, Outcome::kReset);
  EXPECT_EQ(response_, TaskResponse::kComplete);
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = {0x00}})), kUnitReset);  // in the fixed format
  ExpectGood(Run({.lun = 0, .cdb = {0x00}}));
}

TEST_F(TasksTest, ANexusResetIsOfAllUnits) {
  Attach(1, TestDisk("/images/b.img"));
  Attach(2, TestDisk("/images/c.img"));
  Run({.lun = 0, .cdb = Cdb(0xA0, 12)});
  const TestCommand& a = Read(1);
  const TestCommand& b = Read(1, TaskAttribute::kSimple, 1);
  const TestCommand& leaving = Read(1, TaskAttribute::kSimple, 2);
  std::unique_ptr<disk::Disk> gone;
  target_.Detach(2, [&](std::unique_ptr<disk::Disk> disk) { gone = std::move(disk); });
  Manage(TaskFunction::kNexusReset, 0, 50);
  RunPosted();
  EXPECT_FALSE(response_.has_value());
  Settle();
  disks_.erase(2);
  for (const TestCommand* command : {&a, &b, &leaving}) ExpectAborted(*command, Outcome::kReset);
  EXPECT_EQ(response_, TaskResponse::kComplete);
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = {0x00}})), kReportedLunsChanged);
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = {0x00}})), kNexusLoss);
  Manage(TaskFunction::kNexusReset);
  EXPECT_EQ(response_, TaskResponse::kComplete);
}

TEST_F(TasksTest, Queries) {
  Manage(TaskFunction::kQueryTaskSet);
  EXPECT_EQ(response_, TaskResponse::kComplete);
  Read(7);
  Read(8, TaskAttribute::kOrdered);
  for (const uint64_t tag : {7, 8}) {
    Manage(TaskFunction::kQueryTask, tag);
    EXPECT_EQ(response_, TaskResponse::kSucceeded);
  }
  Manage(TaskFunction::kQueryTask, 9);
  EXPECT_EQ(response_, TaskResponse::kComplete);
  Manage(TaskFunction::kQueryTaskSet);
  EXPECT_EQ(response_, TaskResponse::kSucceeded);
}

TEST_F(TasksTest, OfNobodyAndOfNothing) {
  for (const uint16_t lun : {uint16_t{1}, uint16_t{64}, uint16_t{0x3FFF}}) {
    Manage(TaskFunction::kLogicalUnitReset, 0, lun);
    EXPECT_EQ(response_, TaskResponse::kIncorrectLun);
  }
  Manage(TaskFunction::kClearAca);
  EXPECT_EQ(response_, TaskResponse::kRejected);
}

TEST_F(TasksTest, ParkedCommandsAreAbortedToo) {
  target_.Quiesce([] {});
  const TestCommand& aborted = Read(1);
  const TestCommand& kept = Read(2);
  const TestCommand& reset = Read(3);
  Manage(TaskFunction::kQueryTask, 1);
  EXPECT_EQ(response_, TaskResponse::kSucceeded);
  Manage(TaskFunction::kAbortTask, 1);
  EXPECT_EQ(response_, TaskResponse::kComplete);
  ExpectAborted(aborted);
  EXPECT_FALSE(kept.done());
  EXPECT_FALSE(reset.done());
  target_.Reset();
  ExpectAborted(kept, Outcome::kReset);
  ExpectAborted(reset, Outcome::kReset);
}

TEST_F(TasksTest, ACommandOfManyStepsStopsAtTheNextOne) {
  const std::vector<uint8_t> block = Pattern(512);
  Begin({.lun = 0, .tag = 5, .cdb = Cdb(0x93, 16).Put32(10, 2048), .data_out = block});
  EXPECT_EQ(disk_.storage().waiting(), 1U);
  Manage(TaskFunction::kAbortTask, 5);
  disk_.Pump();
  EXPECT_EQ(disk_.storage().waiting(), 0U);
  EXPECT_EQ(commands_.back().outcome, Outcome::kAborted);
  RunPosted();
  EXPECT_EQ(response_, TaskResponse::kComplete);
}

TEST_F(TasksTest, SeveralFunctionsWaitForTheSameTask) {
  const TestCommand& read = Read(1);
  Manage(TaskFunction::kAbortTask, 1);
  bool reset = false;
  target_.Manage(TaskFunction::kLogicalUnitReset, 0, 0, [&](TaskResponse) { reset = true; });
  Settle();
  ExpectAborted(read);  // as the first one said
  EXPECT_EQ(response_, TaskResponse::kComplete);
  EXPECT_TRUE(reset);
}

TEST_F(TasksTest, AfterTheDriverHasGoneUnitsAreAsAfterPowerOn) {
  const TestCommand& read = Read(1);
  ExpectGood(Begin({.lun = 0, .cdb = Cdb(0x1B, 6).Put8(4, 0x04)}));
  target_.Reset();
  Settle();
  ExpectAborted(read, Outcome::kReset);
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = {0x00}})), kPowerOn);
  ExpectGood(Run({.lun = 0, .cdb = {0x00}}));
}

}  // namespace
}  // namespace bothy::scsi
