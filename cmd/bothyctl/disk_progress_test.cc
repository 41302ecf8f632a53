#include "cmd/bothyctl/disk_progress.h"

#include <gtest/gtest.h>

namespace bothy::bothyctl {
namespace {

constexpr uint64_t kGiB = 1 << 30;

std::string Bar(uint64_t done, size_t columns) {
  return DiskProgress::Bar("convert", done, 4 * kGiB, std::chrono::seconds(6), columns);
}

TEST(DiskProgressTest, ShowsHowFarItIs) {
  EXPECT_EQ(Bar(kGiB, 100),
            "convert [#######                       ] 25 %, 1 GiB of 4 GiB, 18 s left");
  EXPECT_EQ(Bar(0, 100), "convert [                              ] 0 %, 0 B of 4 GiB");
  EXPECT_EQ(Bar(4 * kGiB, 100), "convert [##############################] 100 %, 4 GiB of 4 GiB");
  // An operation may count more than it thought there was.
  EXPECT_EQ(Bar(5 * kGiB, 100), Bar(4 * kGiB, 100));
}

TEST(DiskProgressTest, FitsTheTerminal) {
  for (size_t columns = 1; columns < 120; ++columns) {
    EXPECT_LE(Bar(kGiB, columns).size(), columns);
  }
  EXPECT_EQ(Bar(kGiB, 20), "convert 25 %");
}

TEST(DiskProgressTest, KnowsThatNothingIsAll) {
  EXPECT_EQ(DiskProgress::Bar("check", 0, 0, std::chrono::seconds(1), 20), "check 100 %");
}

}  // namespace
}  // namespace bothy::bothyctl
