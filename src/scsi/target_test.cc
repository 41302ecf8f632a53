// Units that come and go, media that change, pauses.
#include "scsi/target.h"

#include <atomic>
#include <thread>

#include "scsi/testing/target_test.h"

namespace bothy::scsi {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

using MediumTest = TargetTest;
using PauseTest = TargetTest;

TestCommand::Shape ReadOf(uint16_t lun, uint64_t tag = 0) {
  return {.lun = lun, .tag = tag, .cdb = Read10(0, 1), .data_in_bytes = 512};
}
TestCommand::Shape WriteOf(uint16_t lun, const std::vector<uint8_t>& data) {
  return {.lun = lun, .cdb = Write10(0, 1), .data_out = data};
}

TEST_F(TargetTest, RefusesWhatCannotBeAttached) {
  const auto attach = [this](uint16_t lun, disk::FakeDisk::Options image,
                             const LogicalUnitOptions& options = {}) {
    return target_.Attach(lun, std::make_unique<disk::FakeDisk>(std::move(image)), options).code();
  };
  EXPECT_EQ(attach(64, TestDisk()), absl::StatusCode::kInvalidArgument);
  disk::FakeDisk::Options odd = TestDisk();
  odd.geometry.logical_sector_bytes = 520;
  odd.geometry.size_bytes = uint64_t{520} * 100;
  EXPECT_EQ(attach(0, std::move(odd)), absl::StatusCode::kInvalidArgument);
  disk::FakeDisk::Options empty = TestDisk();
  empty.geometry.size_bytes = 0;
  EXPECT_EQ(attach(0, std::move(empty)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(attach(0, TestDisk(), {.serial = "tab\t"}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(attach(0, TestDisk(), {.product = {}}), absl::StatusCode::kInvalidArgument);
  Attach(0);
  EXPECT_EQ(attach(0, TestDisk()), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(target_.Snapshot(), SizeIs(1));
}

TEST_F(TargetTest, AllPlacesMayBeTaken) {
  for (uint16_t lun = 0; lun < kMaxLuns; ++lun) {
    AttachFresh(lun, TestDisk("/images/" + std::to_string(lun)));
  }
  EXPECT_THAT(target_.Snapshot(), SizeIs(kMaxLuns));
  const TestCommand& luns =
      Run({.lun = 0, .cdb = Cdb(0xA0, 12).Put32(6, 8 + 8 * kMaxLuns), .data_in_bytes = 520});
  EXPECT_EQ(luns.data_in_written, 520U);
}

TEST_F(TargetTest, DetachWaitsForWhatIsUnderWay) {
  disk::FakeDisk& disk = Attach(1);
  const TestCommand& read = Begin(ReadOf(1));
  std::unique_ptr<disk::Disk> got;
  target_.Detach(1, [&](std::unique_ptr<disk::Disk> given) { got = std::move(given); });
  // Nobody is there any more, and the place is free.
  EXPECT_FALSE(target_.Has(1));
  EXPECT_EQ(Condition(Begin(ReadOf(1))), kUnitNotSupported);
  AttachFresh(1, TestDisk("/images/next.img"));
  EXPECT_EQ(Condition(Begin(ReadOf(1))), kPowerOn);
  RunPosted();
  EXPECT_EQ(got, nullptr);
  disk.Pump();
  ExpectGood(read);
  EXPECT_EQ(got, nullptr);  // not within the disk's own call
  RunPosted();
  EXPECT_EQ(got.get(), &disk);
}

TEST_F(TargetTest, TheSamePlaceAgainAndAgain) {
  for (int round = 0; round < 1000; ++round) {
    Attach(9);
    ExpectGood(Run(ReadOf(9)));
    EXPECT_NE(Detach(9), nullptr);
  }
  EXPECT_THAT(target_.Snapshot(), IsEmpty());
}

TEST_F(TargetTest, OrderedCommandsStandBetweenTheOthers) {
  disk::FakeDisk& disk = Attach(0);
  const std::vector<uint8_t> first = Pattern(512, 1);
  const std::vector<uint8_t> second = Pattern(512, 2);
  const TestCommand& before = Begin(WriteOf(0, first));
  TestCommand::Shape ordered = ReadOf(0);
  ordered.attribute = TaskAttribute::kOrdered;
  const TestCommand& barrier = Begin(ordered);
  const TestCommand& after = Begin(WriteOf(0, second));
  EXPECT_EQ(disk.storage().waiting(), 1U);
  disk.Pump();
  EXPECT_TRUE(before.done());
  EXPECT_EQ(disk.storage().waiting(), 1U);
  disk.Pump();
  EXPECT_EQ(barrier.data_in(), first);
  EXPECT_FALSE(after.done());
  Settle();
  ExpectGood(after);
}

TEST_F(TargetTest, HeadOfQueueCommandsWaitForNoOther) {
  disk::FakeDisk& disk = Attach(0);
  const std::vector<uint8_t> data = Pattern(512, 1);
  TestCommand::Shape shape = WriteOf(0, data);
  const TestCommand& running = Begin(shape);
  shape.attribute = TaskAttribute::kOrdered;
  const TestCommand& ordered = Begin(shape);
  const TestCommand& behind = Begin(WriteOf(0, data));
  shape = ReadOf(0);
  shape.attribute = TaskAttribute::kHeadOfQueue;
  // It passes what waits, the ordered one among them.
  const TestCommand& first = Begin(shape);
  EXPECT_EQ(disk.storage().waiting(), 2U);
  disk.Pump();
  EXPECT_TRUE(running.done());
  EXPECT_FALSE(ordered.done());
  disk.Pump();
  ExpectGood(first);
  EXPECT_EQ(disk.storage().waiting(), 1U);  // the ordered one
  // And begins beside an ordered one that is under way.
  const TestCommand& second = Begin(shape);
  EXPECT_EQ(disk.storage().waiting(), 2U);
  disk.Pump();
  EXPECT_TRUE(ordered.done());
  EXPECT_FALSE(second.done());
  EXPECT_FALSE(behind.done());
  Settle();
  ExpectGood(second);
  ExpectGood(behind);
}

TEST_F(TargetTest, OneCommandAtATimeHasThePrivateMemory) {
  disk::FakeDisk& disk = Attach(0);
  for (int i = 0; i < 5; ++i) Begin({.lun = 0, .cdb = Cdb(0x2F, 10).Put16(7, 8)});
  EXPECT_EQ(disk.storage().waiting(), 1U);
  // Others pass those that wait for it, but an ordered one comes after them.
  const TestCommand& read = Begin(ReadOf(0));
  EXPECT_EQ(disk.storage().waiting(), 2U);
  TestCommand::Shape ordered = ReadOf(0);
  ordered.attribute = TaskAttribute::kOrdered;
  Begin(ordered);
  disk.Pump();
  disk.Pump();
  EXPECT_TRUE(read.done());
  EXPECT_EQ(disk.storage().waiting(), 1U);
  Settle();
  for (const TestCommand& command : commands_) EXPECT_TRUE(command.done());
}

TEST_F(TargetTest, AFrontEndThatGoesOnFromCompleteGrowsNoStack) {
  disk::FakeDisk::Options image = TestDisk();
  image.immediate = true;
  Attach(0, std::move(image));
  // Waiting commands, each of which ends at once and brings in another.
  target_.Quiesce([] {});
  int left = 100'000;
  TestCommand command;
  command.Prepare(ReadOf(0));
  command.on_complete = [&] {
    if (--left > 0)
      posted_.push_back([&] {
        command.Prepare(ReadOf(0));
        target_.Execute(command);
      });
  };
  target_.Execute(command);
  std::vector<TestCommand> many(20'000);
  for (TestCommand& each : many) {
    each.Prepare({.lun = 0,
                  .attribute = TaskAttribute::kOrdered,
                  .cdb = Read10(0, 1),
                  .data_in_bytes = 512});
    target_.Execute(each);
  }
  target_.Resume();
  Settle();
  EXPECT_EQ(left, 0);
  for (const TestCommand& each : many) EXPECT_TRUE(each.done());
}

TEST_F(MediumTest, IsExchangedWhileCommandsWait) {
  disk::FakeDisk& old = Attach(0);
  const std::vector<uint8_t> data = Pattern(512);
  const TestCommand& before = Begin(WriteOf(0, data));
  std::unique_ptr<disk::Disk> taken;
  target_.TakeMedium(0, [&](std::unique_ptr<disk::Disk> disk) { taken = std::move(disk); });
  const TestCommand& meanwhile = Begin(ReadOf(0));
  EXPECT_EQ(taken, nullptr);
  Settle();
  ExpectGood(before);
  EXPECT_EQ(taken.get(), &old);
  EXPECT_FALSE(meanwhile.done());
  EXPECT_EQ(target_.disk(0), nullptr);
  EXPECT_EQ(target_.Snapshot()[0].description.format, "");
  EXPECT_EQ(target_.RefreshCapacity(0).status().code(), absl::StatusCode::kFailedPrecondition);
  disks_.erase(0);

  auto next = std::make_unique<disk::FakeDisk>(TestDisk("/images/next.img"));
  disks_[0] = next.get();
  next->storage().Poke(0, Pattern(512, 9));
  target_.PutMedium(0, std::move(next), {});
  EXPECT_EQ(Condition(meanwhile), kMediumChanged);
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = {0x00}})), kCapacityChanged);
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = {0x00}})), kInquiryDataChanged);
  EXPECT_EQ(Run(ReadOf(0)).data_in(), Pattern(512, 9));
  EXPECT_EQ(target_.Snapshot()[0].description.path, "/images/next.img");
}

TEST_F(MediumTest, PutBackUnchangedNobodyHearsOfIt) {
  disk::FakeDisk& disk = Attach(0);
  std::unique_ptr<disk::Disk> taken;
  target_.TakeMedium(0, [&](std::unique_ptr<disk::Disk> given) { taken = std::move(given); });
  EXPECT_EQ(taken.get(), &disk);  // nothing was under way
  const TestCommand& meanwhile = Begin(ReadOf(0));
  EXPECT_FALSE(meanwhile.done());
  target_.PutMedium(0, std::move(taken), {}, Target::MediumChange::kUnchanged);
  Settle();
  ExpectGood(meanwhile);
}

TEST_F(MediumTest, AUnitWithoutOneCanBeDetached) {
  Attach(0);
  std::unique_ptr<disk::Disk> taken;
  target_.TakeMedium(0, [&](std::unique_ptr<disk::Disk> given) { taken = std::move(given); });
  const TestCommand& waiting = Begin(ReadOf(0));
  bool detached = false;
  target_.Detach(0, [&](std::unique_ptr<disk::Disk> disk) {
    EXPECT_EQ(disk, nullptr);
    detached = true;
  });
  disks_.erase(0);
  Settle();
  EXPECT_TRUE(detached);
  EXPECT_EQ(Condition(waiting), kUnitNotSupported);
}

TEST_F(PauseTest, NothingStartsAndWhatRunsEndsFirst) {
  disk::FakeDisk& disk = Attach(0);
  const TestCommand& running = Begin(ReadOf(0));
  bool quiet = false;
  target_.Quiesce([&] { quiet = true; });
  const TestCommand& parked = Begin(ReadOf(0));
  const TestCommand& nowhere = Begin(ReadOf(5));
  RunPosted();
  EXPECT_FALSE(quiet);
  EXPECT_EQ(disk.storage().waiting(), 1U);
  Settle();
  EXPECT_TRUE(quiet);
  EXPECT_TRUE(running.done());
  EXPECT_FALSE(parked.done());
  EXPECT_FALSE(nowhere.done());
  target_.Resume();
  Settle();
  ExpectGood(parked);
  EXPECT_EQ(Condition(nowhere), kUnitNotSupported);
  target_.Resume();  // of no consequence
}

TEST_F(PauseTest, IsQuietAtOnceWhenNothingRuns) {
  Attach(0);
  bool quiet = false;
  target_.Quiesce([&] { quiet = true; });
  EXPECT_TRUE(quiet);
}

TEST_F(PauseTest, WaitsForWhatDisksDoOnTheirOwn) {
  disk::FakeDisk& disk = Attach(0);
  disk.flushes_to_settle = 2;
  Begin(ReadOf(0));
  bool quiet = false;
  target_.Quiesce([&] { quiet = true; });
  disk.Pump();  // the command
  RunPosted();
  disk.Pump();
  RunPosted();
  EXPECT_FALSE(quiet);
  disk.Pump();
  RunPosted();
  EXPECT_TRUE(quiet);
  EXPECT_EQ(disk.storage().waiting(), 0U);
}

TEST_F(PauseTest, WaitsForWhoeverWorksOnADiskThatLeft) {
  disk::FakeDisk& disk = Attach(0);
  target_.Hold();
  bool quiet = false;
  target_.Quiesce([&] { quiet = true; });
  RunPosted();
  EXPECT_FALSE(quiet);
  target_.Release();
  RunPosted();
  EXPECT_TRUE(quiet);
  // While paused it is nobody's affair.
  target_.Hold();
  target_.Release();
  RunPosted();
  target_.Resume();
  // One that begins while others settle, and one that has ended by then.
  for (const bool ends_first : {false, true}) {
    disk.flushes_to_settle = 1;
    quiet = false;
    target_.Quiesce([&] { quiet = true; });
    target_.Hold();
    if (ends_first) target_.Release();
    RunPosted();
    EXPECT_FALSE(quiet);
    disk.Pump();
    RunPosted();
    EXPECT_EQ(quiet, ends_first);
    if (!ends_first) {
      target_.Release();
      RunPosted();
    }
    EXPECT_TRUE(quiet);
    target_.Resume();
  }
}

TEST_F(PauseTest, ADiskIsNotGivenAwayWhileItSettles) {
  disk::FakeDisk& disk = Attach(0);
  disk.flushes_to_settle = 1;
  bool quiet = false;
  target_.Quiesce([&] { quiet = true; });
  std::unique_ptr<disk::Disk> given;
  target_.Detach(0, [&](std::unique_ptr<disk::Disk> detached) { given = std::move(detached); });
  RunPosted();
  EXPECT_EQ(given, nullptr);
  EXPECT_FALSE(quiet);
  disk.Pump();
  RunPosted();
  EXPECT_NE(given, nullptr);
  EXPECT_TRUE(quiet);
  disks_.erase(0);  // it is freed before the fixture
}

TEST_F(PauseTest, WhoWaitsForADiskHasItBeforeItSettles) {
  disk::FakeDisk& disk = Attach(0);
  disk.flushes_to_settle = 1;
  Begin(ReadOf(0));
  std::unique_ptr<disk::Disk> given;
  target_.Detach(0, [&](std::unique_ptr<disk::Disk> detached) { given = std::move(detached); });
  disk.Pump();  // the command; the hand-over is posted
  bool quiet = false;
  target_.Quiesce([&] { quiet = true; });
  EXPECT_FALSE(quiet);
  RunPosted();
  EXPECT_NE(given, nullptr);
  EXPECT_TRUE(quiet);
  EXPECT_EQ(disk.flushes_to_settle, 1);
  disks_.erase(0);  // it is freed before the fixture
}

TEST_F(PauseTest, HoldsCommandsBehindABarrierToo) {
  disk::FakeDisk& disk = Attach(0);
  Begin(ReadOf(0));
  TestCommand::Shape ordered = ReadOf(0);
  ordered.attribute = TaskAttribute::kOrdered;
  const TestCommand& barrier = Begin(ordered);
  target_.Quiesce([] {});
  Settle();
  EXPECT_FALSE(barrier.done());
  EXPECT_EQ(disk.storage().waiting(), 0U);
  target_.Resume();
  EXPECT_EQ(disk.storage().waiting(), 1U);
  Settle();
  ExpectGood(barrier);
}

TEST_F(PauseTest, WhatWasMeantForADetachedDiskNeverReachesTheNextOne) {
  Attach(0);
  Begin(ReadOf(0));
  TestCommand::Shape ordered = WriteOf(0, Pattern(512));
  ordered.attribute = TaskAttribute::kOrdered;
  const TestCommand& waiting = Begin(ordered);
  target_.Quiesce([] {});
  const TestCommand& parked = Begin(WriteOf(0, Pattern(512)));
  EXPECT_NE(Detach(0), nullptr);
  disk::FakeDisk& next = AttachFresh(0, TestDisk("/images/next.img"));
  EXPECT_FALSE(waiting.done());
  EXPECT_FALSE(parked.done());
  target_.Resume();
  Settle();
  EXPECT_EQ(Condition(waiting), kUnitNotSupported);
  EXPECT_EQ(Condition(parked), kUnitNotSupported);
  EXPECT_EQ(Peek(next, 0, 512), std::vector<uint8_t>(512));
}

TEST_F(TargetTest, SnapshotsFromAnotherThread) {
  disk::FakeDisk::Options image = TestDisk();
  image.immediate = true;
  Attach(0, std::move(image));
  std::atomic<bool> stop = false;
  std::thread reader([&] {
    uint64_t last = 0;
    while (!stop) {
      for (const UnitSnapshot& unit : target_.Snapshot()) {
        if (unit.lun != 0) continue;
        EXPECT_GE(unit.counters.reads, last);
        last = unit.counters.reads;
      }
    }
  });
  for (int i = 0; i < 2000; ++i) {
    Run(ReadOf(0));
    commands_.clear();
    if (i % 100 != 0) continue;
    Attach(1, TestDisk("/images/b.img"));
    Run({.lun = 0, .cdb = {0x00}});
    Detach(1);
    Run({.lun = 0, .cdb = {0x00}});
    *target_.RefreshCapacity(0);
  }
  stop = true;
  reader.join();
  EXPECT_EQ(target_.Snapshot()[0].counters.reads, 2000U);
}

}  // namespace
}  // namespace bothy::scsi
