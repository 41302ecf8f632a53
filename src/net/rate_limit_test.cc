#include "net/rate_limit.h"

#include <gtest/gtest.h>

#include <limits>

namespace bothy::net {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

class RateLimitTest : public ::testing::Test {
 protected:
  RateLimit Limit(uint64_t bits_per_second) {
    return RateLimit(bits_per_second, [this] { return now_; });
  }
  // Frames of `bytes` that pass in `ns` when there is always one waiting, time going on in steps of
  // what the limit says.
  uint64_t Pass(RateLimit& limit, uint64_t bytes, uint64_t ns) {
    const uint64_t end = now_ + ns;
    uint64_t frames = 0;
    while (true) {
      if (const uint64_t wait = limit.WaitNs(); wait != 0) {
        if (now_ + wait > end) break;
        now_ += wait;
        EXPECT_TRUE(limit.Ready()) << "it takes longer than it said";
      }
      limit.Spend(bytes);
      ++frames;
    }
    now_ = end;
    return frames;
  }
  uint64_t now_ = 12345;
};

TEST_F(RateLimitTest, KeepsTheRateInTheLongRun) {
  for (const uint64_t rate : {10'000UL, 999'983UL, 1'000'000'000UL, 100'000'000'000UL}) {
    for (const uint64_t bytes : {60UL, 1514UL, 65'550UL}) {
      RateLimit limit = Limit(rate);
      const uint64_t warm = Pass(limit, bytes, 1);
      EXPECT_GE(warm * bytes, RateLimit::kLeastBurstBytes);
      // A thousand frames' worth of time.
      const uint64_t time = 8 * bytes * kSecond / rate * 1000;
      const uint64_t frames = Pass(limit, bytes, time);
      const double expected = static_cast<double>(rate) * static_cast<double>(time) /
                              (8e9 * static_cast<double>(bytes));
      EXPECT_NEAR(static_cast<double>(frames), expected, 1.01) << rate << " " << bytes;
    }
  }
}

TEST_F(RateLimitTest, SilenceIsWorthOneBurst) {
  RateLimit limit = Limit(8'000'000'000);  // a byte a nanosecond
  constexpr uint64_t kBurst = RateLimit::kBurstNs;
  for (int i = 0; i < 3; ++i) {
    now_ += 100 * kSecond;
    uint64_t sent = 0;
    while (limit.Ready()) {
      limit.Spend(1000);
      sent += 1000;
    }
    EXPECT_EQ(sent, kBurst);
  }
}

TEST_F(RateLimitTest, SmallStepsEarnAsMuchAsLargeOnes) {
  RateLimit limit = Limit(3);  // a third of a second a bit
  while (limit.Ready()) limit.Spend(1);
  limit.Spend(1);
  const uint64_t wait = limit.WaitNs();
  uint64_t waited = 0;
  for (; !limit.Ready(); ++waited) now_ += 1'000'000;
  EXPECT_NEAR(static_cast<double>(waited), static_cast<double>(wait) / 1e6, 1);
}

TEST_F(RateLimitTest, NoLimitIsNone) {
  RateLimit limit = Limit(0);
  for (int i = 0; i < 1000; ++i) {
    EXPECT_TRUE(limit.Ready());
    EXPECT_EQ(limit.WaitNs(), 0U);
    limit.Spend(std::numeric_limits<uint64_t>::max());
  }
}

TEST_F(RateLimitTest, ExtremesOverflowNothing) {
  for (const uint64_t rate : {uint64_t{1}, std::numeric_limits<uint64_t>::max()}) {
    RateLimit limit = Limit(rate);
    for (int i = 0; i < 4; ++i) limit.Spend(std::numeric_limits<uint64_t>::max());
    EXPECT_FALSE(limit.Ready());
    EXPECT_GT(limit.WaitNs(), 0U);
    now_ = std::numeric_limits<uint64_t>::max() - 1;
    EXPECT_EQ(limit.Ready(), limit.WaitNs() == 0);
    now_ = 12345;
  }
}

}  // namespace
}  // namespace bothy::net
