#include "boot/parallel_work.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>

namespace bothy::boot {
namespace {

TEST(ParallelWorkTest, RunsEveryTaskOnce) {
  for (const unsigned threads : {0U, 1U, 2U, 8U}) {
    std::vector<std::atomic<int>> runs(1000);
    ParallelWork work(threads);
    for (auto& run : runs) {
      work.Submit([&run] {
        ++run;
        return absl::OkStatus();
      });
    }
    EXPECT_TRUE(work.Finish().ok());
    for (const auto& run : runs) EXPECT_EQ(run, 1);
  }
}

TEST(ParallelWorkTest, GivesTheFirstErrorAndStopsThere) {
  ParallelWork work(1);
  int runs = 0;
  for (int i = 0; i < 10; ++i) {
    work.Submit([&runs, i]() -> absl::Status {
      ++runs;
      if (i == 3) return absl::DataLossError("three");
      return absl::OkStatus();
    });
  }
  EXPECT_EQ(work.Finish().message(), "three");
  EXPECT_EQ(runs, 4);
}

TEST(ParallelWorkTest, TakesMoreWorkAfterFinish) {
  ParallelWork work(3);
  std::atomic<int> runs{0};
  for (int round = 1; round <= 3; ++round) {
    for (int i = 0; i < 20; ++i) {
      work.Submit([&runs] {
        ++runs;
        return absl::OkStatus();
      });
    }
    EXPECT_TRUE(work.Finish().ok());
    EXPECT_EQ(runs, 20 * round);
  }
}

TEST(ParallelWorkTest, FinishRunsWhatNoHelperWasIdleFor) {
  for (const unsigned threads : {1U, 2U, 8U}) {
    ParallelWork work(threads);
    std::atomic<int> for_idle{0};
    std::atomic<int> submitted{0};
    for (int i = 0; i < 100; ++i) {
      work.SubmitForIdle([&for_idle] {
        ++for_idle;
        return absl::OkStatus();
      });
    }
    for (int i = 0; i < 10; ++i) {
      work.Submit([&submitted] {
        ++submitted;
        return absl::OkStatus();
      });
    }
    EXPECT_TRUE(work.FinishSubmitted().ok());
    EXPECT_EQ(submitted, 10);
    EXPECT_TRUE(work.Finish().ok());
    EXPECT_EQ(for_idle, 100);
  }
}

TEST(ParallelWorkTest, FinishSubmittedLeavesIdleWorkToHelpers) {
  ParallelWork alone(1);
  int runs = 0;
  alone.SubmitForIdle([&runs] {
    ++runs;
    return absl::OkStatus();
  });
  EXPECT_TRUE(alone.FinishSubmitted().ok());
  EXPECT_EQ(runs, 0);
  EXPECT_TRUE(alone.Finish().ok());
  EXPECT_EQ(runs, 1);
}

TEST(ParallelWorkTest, OneTaskStartsNoThread) {
  ParallelWork work(8);
  std::thread::id where;
  work.Submit([&where] {
    where = std::this_thread::get_id();
    return absl::OkStatus();
  });
  EXPECT_TRUE(work.Finish().ok());
  EXPECT_EQ(where, std::this_thread::get_id());
}

TEST(ParallelWorkTest, DestructionWaitsForWhatRuns) {
  std::atomic<int> inside{0};
  {
    ParallelWork work(4);
    for (int i = 0; i < 100; ++i) {
      work.Submit([&inside] {
        ++inside;
        std::this_thread::yield();
        --inside;
        return absl::OkStatus();
      });
    }
  }
  EXPECT_EQ(inside, 0);
}

}  // namespace
}  // namespace bothy::boot
