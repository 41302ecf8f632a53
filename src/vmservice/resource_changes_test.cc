#include "vmservice/resource_changes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vmservice/testing/recording_machine.h"

namespace bothy::vmservice {
namespace {

using machine::Change;
using machine::Machine;

// One caller and what it has been told.
struct Caller {
  uint64_t id = 0;
  bool gone = false;
  std::optional<absl::Status> answer;
};

class ResourceChangesTest : public ::testing::Test {
 protected:
  std::shared_ptr<Caller> Start(Change change, uint32_t lun) {
    auto caller = std::make_shared<Caller>();
    caller->id = next_id_++;
    changes_->Start(caller->id, Scsi(change, lun),
                    {.abandoned = [caller] { return caller->gone; },
                     .done =
                         [caller](const absl::Status& status) {
                           EXPECT_FALSE(caller->answer.has_value()) << "answered twice";
                           caller->answer = status;
                         }});
    return caller;
  }
  static ResourceChange Scsi(Change change, uint32_t lun) {
    return {.resource = "scsi_disk 0:" + std::to_string(lun),
            .change = change,
            .apply = [lun](Machine& machine, Change now, std::stop_token stop,
                           machine::ChangeDone done) {
              machine.ModifyScsiDisk(now, {.controller = 0, .lun = lun, .image = {}},
                                     std::move(stop), std::move(done));
            }};
  }
  void Leave(Caller& caller) {
    caller.gone = true;
    changes_->Stop(caller.id);
  }

  RecordingMachine machine_;
  std::unique_ptr<ResourceChanges> changes_ = std::make_unique<ResourceChanges>(machine_);
  uint64_t next_id_ = 1;
};

TEST_F(ResourceChangesTest, AnswersWhatTheMachineSays) {
  const auto good = Start(Change::kAdd, 0);
  const auto bad = Start(Change::kRemove, 1);
  ASSERT_EQ(machine_.changes.size(), 2U);
  EXPECT_EQ(machine_.changes[0]->change, Change::kAdd);
  EXPECT_EQ(machine_.changes[1]->change, Change::kRemove);
  EXPECT_EQ(changes_->pending(), 2U);
  machine_.End(1, absl::NotFoundError("scsi_disk.lun: nothing there"));
  machine_.End(0, absl::OkStatus());
  EXPECT_EQ(good->answer, absl::OkStatus());
  EXPECT_EQ(bad->answer, absl::NotFoundError("scsi_disk.lun: nothing there"));
  EXPECT_EQ(changes_->pending(), 0U);
}

TEST_F(ResourceChangesTest, OfOneResourceComeOneAfterAnother) {
  const auto add = Start(Change::kAdd, 0);
  const auto update = Start(Change::kUpdate, 0);
  const auto remove = Start(Change::kRemove, 0);
  const auto other = Start(Change::kAdd, 1);
  ASSERT_EQ(machine_.changes.size(), 2U);
  EXPECT_EQ(machine_.changes[1]->scsi->lun, 1U);
  machine_.End(0, absl::DataLossError("x"));
  ASSERT_EQ(machine_.changes.size(), 3U);
  EXPECT_EQ(machine_.changes[2]->change, Change::kUpdate);
  EXPECT_TRUE(add->answer.has_value());
  EXPECT_FALSE(update->answer.has_value());
  machine_.End(2, absl::OkStatus());
  ASSERT_EQ(machine_.changes.size(), 4U);
  EXPECT_EQ(machine_.changes[3]->change, Change::kRemove);
  machine_.End(3, absl::OkStatus());
  machine_.End(1, absl::OkStatus());
  EXPECT_EQ(remove->answer, absl::OkStatus());
  EXPECT_EQ(other->answer, absl::OkStatus());
}

TEST_F(ResourceChangesTest, AnyNumberOfThemMayEndAtOnce) {
  const auto first = Start(Change::kAdd, 0);
  std::vector<std::shared_ptr<Caller>> rest;
  constexpr size_t kMany = 5'000;
  for (size_t i = 0; i < kMany; ++i) rest.push_back(Start(Change::kUpdate, 0));
  machine_.at_once = [](const auto&) { return absl::OkStatus(); };
  machine_.End(0, absl::OkStatus());
  EXPECT_EQ(machine_.changes.size(), kMany + 1);
  for (const auto& caller : rest) EXPECT_EQ(caller->answer, absl::OkStatus());
}

TEST_F(ResourceChangesTest, ACallerThatLeavesHasItsChangeGiveUp) {
  const auto remove = Start(Change::kRemove, 0);
  const auto next = Start(Change::kRemove, 0);
  Leave(*remove);
  EXPECT_EQ(remove->answer, absl::CancelledError("stopped"));
  ASSERT_EQ(machine_.changes.size(), 2U);
  machine_.End(1, absl::OkStatus());
  EXPECT_EQ(next->answer, absl::OkStatus());
}

TEST_F(ResourceChangesTest, ACallerThatLeavesBeforeItsTurnHasNothingChanged) {
  const auto first = Start(Change::kRemove, 0);
  const auto second = Start(Change::kAdd, 0);
  const auto third = Start(Change::kUpdate, 0);
  Leave(*second);
  EXPECT_EQ(second->answer->code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(first->answer.has_value());
  machine_.End(0, absl::OkStatus());
  ASSERT_EQ(machine_.changes.size(), 2U);
  EXPECT_EQ(machine_.changes[1]->change, Change::kUpdate);
  machine_.End(1, absl::OkStatus());
  EXPECT_EQ(third->answer, absl::OkStatus());
}

TEST_F(ResourceChangesTest, AStopAfterTheAnswerIsNothing) {
  const auto add = Start(Change::kAdd, 0);
  machine_.End(0, absl::OkStatus());
  Leave(*add);
  EXPECT_EQ(machine_.changes.size(), 1U);
}

TEST_F(ResourceChangesTest, AnAdditionThatNobodyHeardOfIsTakenBack) {
  machine_.heeds_stop = false;
  const auto add = Start(Change::kAdd, 7);
  const auto next = Start(Change::kAdd, 7);
  Leave(*add);
  EXPECT_TRUE(machine_.changes[0]->stop.stop_requested());
  machine_.End(0, absl::OkStatus());
  ASSERT_EQ(machine_.changes.size(), 2U);
  EXPECT_EQ(machine_.changes[1]->change, Change::kRemove);
  EXPECT_EQ(machine_.changes[1]->scsi->lun, 7U);
  EXPECT_FALSE(machine_.changes[1]->stop.stop_requested());
  EXPECT_FALSE(add->answer.has_value());
  Leave(*add);  // a deadline and a hang-up, say
  EXPECT_FALSE(machine_.changes[1]->stop.stop_requested());
  machine_.End(1, absl::OkStatus());
  EXPECT_EQ(add->answer->code(), absl::StatusCode::kCancelled);
  ASSERT_EQ(machine_.changes.size(), 3U);
  machine_.End(2, absl::OkStatus());
  EXPECT_EQ(next->answer, absl::OkStatus());
}

TEST_F(ResourceChangesTest, AnAdditionThatCannotBeTakenBackStays) {
  machine_.heeds_stop = false;
  const auto add = Start(Change::kAdd, 0);
  Leave(*add);
  machine_.End(0, absl::OkStatus());
  machine_.End(1, absl::DeadlineExceededError("the guest doesn't answer"));
  EXPECT_EQ(add->answer->code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(changes_->pending(), 0U);
}

TEST_F(ResourceChangesTest, WhatIsTooFarOnToBeGivenUpIsNotUndoneUnlessItAdded) {
  machine_.heeds_stop = false;
  for (const Change change : {Change::kRemove, Change::kUpdate}) {
    machine_.changes.clear();
    const auto caller = Start(change, 0);
    Leave(*caller);
    machine_.End(0, absl::OkStatus());
    EXPECT_EQ(machine_.changes.size(), 1U);
    EXPECT_TRUE(caller->answer.has_value());
  }
}

TEST_F(ResourceChangesTest, TheEndHasAllGiveUpAndSaysWhy) {
  const absl::Status why = absl::FailedPreconditionError("torn down");
  const auto first = Start(Change::kRemove, 0);
  const auto second = Start(Change::kRemove, 0);
  const auto other = Start(Change::kRemove, 1);
  bool none = false;
  changes_->EndAll(why, [&] {
    EXPECT_FALSE(none);
    none = true;
  });
  EXPECT_TRUE(none);
  EXPECT_EQ(first->answer, why);
  EXPECT_EQ(second->answer, why);
  EXPECT_EQ(other->answer, why);
  EXPECT_EQ(machine_.changes.size(), 2U);
  const auto late = Start(Change::kAdd, 2);
  EXPECT_EQ(late->answer, why);
  EXPECT_EQ(machine_.changes.size(), 2U);
}

TEST_F(ResourceChangesTest, TheEndWaitsForWhatIsTooFarOn) {
  machine_.heeds_stop = false;
  const auto add = Start(Change::kAdd, 0);
  const auto remove = Start(Change::kRemove, 1);
  bool none = false;
  changes_->EndAll(absl::FailedPreconditionError("halted"), nullptr);
  changes_->EndAll(absl::FailedPreconditionError("torn down"), [&] { none = true; });
  EXPECT_TRUE(machine_.changes[0]->stop.stop_requested());
  add->gone = true;
  machine_.End(0, absl::OkStatus());
  EXPECT_FALSE(none);
  // Nobody takes back what goes with the VM.
  EXPECT_EQ(machine_.changes.size(), 2U);
  machine_.End(1, absl::InternalError("x"));
  EXPECT_TRUE(none);
  EXPECT_EQ(remove->answer, absl::InternalError("x"));
}

TEST_F(ResourceChangesTest, TheEndOfNothingIsAtOnce) {
  bool none = false;
  changes_->EndAll(absl::FailedPreconditionError("x"), [&] { none = true; });
  EXPECT_TRUE(none);
}

TEST_F(ResourceChangesTest, TheEndHasATakingBackGiveUp) {
  machine_.heeds_stop = false;
  const auto add = Start(Change::kAdd, 0);
  Leave(*add);
  machine_.heeds_stop = true;
  machine_.End(0, absl::OkStatus());
  bool none = false;
  changes_->EndAll(absl::FailedPreconditionError("x"), [&] { none = true; });
  EXPECT_TRUE(none);
  EXPECT_TRUE(add->answer.has_value());
}

TEST_F(ResourceChangesTest, WhatIsDroppedIsAnsweredAndForgotten) {
  machine_.heeds_stop = false;
  const auto first = Start(Change::kAdd, 0);
  const auto second = Start(Change::kRemove, 0);
  changes_->Drop(absl::CancelledError("the server is ending"));
  changes_.reset();
  EXPECT_EQ(first->answer, absl::CancelledError("the server is ending"));
  EXPECT_EQ(second->answer, absl::CancelledError("the server is ending"));
  machine_.End(0, absl::OkStatus());
}

}  // namespace
}  // namespace bothy::vmservice
