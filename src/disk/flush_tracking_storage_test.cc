#include "disk/flush_tracking_storage.h"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "disk/testing/memory_storage.h"

namespace bothy::disk {
namespace {

class FlushTrackingStorageTest : public ::testing::Test {
 protected:
  FlushTrackingStorageTest() {
    memory_.on_request = [this](const Request& request) {
      if (request.operation != Operation::kFlush) return absl::OkStatus();
      return flushes_++ == failing_ ? absl::DataLossError("EIO") : absl::OkStatus();
    };
  }
  ~FlushTrackingStorageTest() override { PumpAll(); }

  struct Pending final : Request {
    Pending() { operation = Operation::kFlush; }
    void Complete(absl::Status result) override { status = std::move(result); }
    std::optional<absl::Status> status;
  };
  void PumpAll() {
    while (memory_.Pump()) {
    }
  }
  absl::Status FlushForUser() {
    Pending flush;
    file_.SubmitUserFlush(flush);
    PumpAll();
    return flush.status.value_or(absl::InternalError("not answered"));
  }

  MemoryStorage memory_;
  FlushTrackingStorage file_{memory_};
  int failing_ = -1;  // which flush of the file
  int flushes_ = 0;
};

TEST_F(FlushTrackingStorageTest, FlushesOfTheFileGoOneAtATimeAndThoseThatComeMeanwhileShareOne) {
  Pending first;
  Pending second;
  Pending third;
  file_.SubmitUserFlush(first);
  file_.SubmitUserFlush(second);
  file_.Submit(third);
  EXPECT_EQ(memory_.waiting(), 1U);
  ASSERT_TRUE(memory_.Pump());
  EXPECT_TRUE(first.status.has_value());
  // It may not have covered what completed before they were submitted.
  EXPECT_FALSE(second.status.has_value());
  EXPECT_FALSE(third.status.has_value());
  EXPECT_EQ(memory_.waiting(), 1U);
  ASSERT_TRUE(memory_.Pump());
  EXPECT_TRUE(second.status.has_value() && second.status->ok());
  EXPECT_TRUE(third.status.has_value() && third.status->ok());
  EXPECT_EQ(flushes_, 2);
}

TEST_F(FlushTrackingStorageTest, AFailureOfTheFormatsOwnFailsTheUsersFromThenOn) {
  EXPECT_TRUE(FlushForUser().ok());
  EXPECT_TRUE(file_.lost().ok());
  failing_ = 1;
  EXPECT_TRUE(absl::IsDataLoss(Await(Flush(file_), memory_)));
  EXPECT_TRUE(Await(Flush(file_), memory_).ok());  // the format's own: it has been told
  // A guest that tries again doesn't get another answer.
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(absl::IsDataLoss(FlushForUser()));
  EXPECT_TRUE(absl::IsDataLoss(file_.AnswerFlush(absl::OkStatus())));
  EXPECT_TRUE(absl::IsDataLoss(file_.lost()));
}

TEST_F(FlushTrackingStorageTest, AFileThatWasDeletedIsNotRemembered) {
  memory_.on_request = [this](const Request&) {
    return flushes_++ == 0 ? absl::UnavailableError("deleted") : absl::OkStatus();
  };
  EXPECT_TRUE(absl::IsUnavailable(FlushForUser()));
  EXPECT_TRUE(FlushForUser().ok());
}

TEST_F(FlushTrackingStorageTest, AFailureFailsAllOfTheUsersThatAreInFlight) {
  for (int failing = 0; failing < 2; ++failing) {
    SCOPED_TRACE(failing);
    FlushTrackingStorage file(memory_);
    failing_ = failing;
    flushes_ = 0;
    Pending flushes[3];
    for (Pending& flush : flushes) file.SubmitUserFlush(flush);
    PumpAll();
    EXPECT_EQ(flushes_, 2);
    // What was answered before it failed had nothing to tell.
    EXPECT_EQ(flushes[0].status->ok(), failing == 1);
    EXPECT_TRUE(absl::IsDataLoss(*flushes[1].status));
    EXPECT_TRUE(absl::IsDataLoss(*flushes[2].status));
  }
}

// A storage that completes within Submit.
TEST(FlushTrackingStorageImmediateTest, AFlushMaySubmitAnotherWhenItEnds) {
  MemoryStorage memory({.immediate = true});
  FlushTrackingStorage file(memory);
  struct Again final : Request {
    explicit Again(FlushTrackingStorage& of) : file(of) { operation = Operation::kFlush; }
    void Complete(absl::Status status) override {
      EXPECT_TRUE(status.ok());
      if (++ended < 3) file.SubmitUserFlush(*this);
    }
    FlushTrackingStorage& file;
    int ended = 0;
  };
  Again flush(file);
  file.SubmitUserFlush(flush);
  EXPECT_EQ(flush.ended, 3);
}

}  // namespace
}  // namespace bothy::disk
