#include "virtio/queue/interrupt_moderation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

namespace bothy::virtio {
namespace {

using Decision = InterruptModeration::Decision;

constexpr int64_t kMicrosecond = 1'000;  // ns

// A driver that keeps `depth` requests under way: when it is interrupted it takes what is complete
// and puts as many new ones on the queue, one every `gap`; the device answers each at once.
class Driver {
 public:
  Driver(InterruptModeration& moderation, uint32_t depth, int64_t gap, int64_t reaction)
      : moderation_(moderation), depth_(depth), gap_(gap), reaction_(reaction), to_put_(depth) {}

  void Run(uint32_t requests) {
    for (uint32_t done = 0; done < requests;) {
      if (to_put_ != 0 && now_ >= next_put_) {
        --to_put_;
        ++done;
        moderation_.OnTaken(now_);
        moderation_.OnCompleted(now_);
        ++complete_;
        next_put_ = now_ + gap_;
      }
      if (moderation_.Decide(now_) == Decision::kInterrupt) {
        ++interrupts_;
        if (to_put_ == 0) next_put_ = now_ + reaction_;
        to_put_ += complete_;
        complete_ = 0;
      }
      now_ += kMicrosecond;
    }
  }
  void set_depth(uint32_t depth) {
    to_put_ += depth;
    to_put_ -= std::min(to_put_, depth_);
    depth_ = depth;
  }
  [[nodiscard]] uint32_t interrupts() const { return interrupts_; }
  [[nodiscard]] int64_t now() const { return now_; }

 private:
  InterruptModeration& moderation_;
  uint32_t depth_;
  int64_t gap_;
  int64_t reaction_;
  uint32_t to_put_;
  uint32_t complete_ = 0;
  uint32_t interrupts_ = 0;
  int64_t now_ = int64_t{1} << 40;
  int64_t next_put_ = 0;
};

TEST(InterruptModerationTest, ALoneRequestIsToldOfAtOnce) {
  InterruptModeration moderation;
  Driver driver(moderation, 1, kMicrosecond, 20 * kMicrosecond);
  driver.Run(64);
  const int64_t begin = driver.now();
  driver.Run(1000);
  EXPECT_EQ(moderation.depth(), 1U);
  EXPECT_GE(driver.interrupts(), 1063U);
  // What its probes cost: a few in a hundred.
  EXPECT_LT(driver.now() - begin, 1000 * 22 * kMicrosecond);
}

TEST(InterruptModerationTest, ManyUnderWayShareAnInterrupt) {
  for (const int64_t gap : {int64_t{2}, int64_t{20}}) {
    SCOPED_TRACE(gap);
    InterruptModeration moderation;
    Driver driver(moderation, 32, gap * kMicrosecond, 2 * gap * kMicrosecond);
    driver.Run(4000);
    EXPECT_GE(moderation.depth(), 24U);
    EXPECT_LE(driver.interrupts(), 4000U / 5);
  }
}

// Where requests come slowly, however many are under way, a few have to do.
TEST(InterruptModerationTest, NoInterruptIsHeldBackForLong) {
  InterruptModeration moderation;
  int64_t now = int64_t{1} << 40;
  int64_t oldest = 0;
  int64_t longest = 0;
  uint32_t long_ones = 0;
  uint32_t interrupts = 0;
  for (int i = 0; i < 4000; ++i) {
    moderation.OnTaken(now);
    moderation.OnCompleted(now);
    if (oldest == 0) oldest = now;
    for (const int64_t next = now + 330 * kMicrosecond; now < next; now += kMicrosecond) {
      if (moderation.Decide(now) != Decision::kInterrupt) continue;
      longest = std::max(longest, now - oldest);
      if (now - oldest > InterruptModeration::kLongestHold) ++long_ones;
      oldest = 0;
      ++interrupts;
    }
  }
  EXPECT_LE(longest, InterruptModeration::kLongestProbe);
  EXPECT_GT(longest, InterruptModeration::kLongestHold);  // a probe
  EXPECT_LE(long_ones, 1 + interrupts / InterruptModeration::kProbeInterval);
  EXPECT_GT(interrupts, 500U);
}

TEST(InterruptModerationTest, LearnsThatTheDriverHasFewerUnderWay) {
  InterruptModeration moderation;
  Driver(moderation, 32, 2 * kMicrosecond, 4 * kMicrosecond).Run(4000);
  ASSERT_GE(moderation.depth(), 24U);
  Driver lone(moderation, 1, kMicrosecond, 20 * kMicrosecond);
  lone.Run(200);
  EXPECT_EQ(moderation.depth(), 1U);
  const int64_t begin = lone.now();
  lone.Run(1000);
  EXPECT_LT(lone.now() - begin, 1000 * 22 * kMicrosecond);
}

TEST(InterruptModerationTest, PatienceEnds) {
  InterruptModeration moderation;
  Driver(moderation, 32, 10 * kMicrosecond, 10 * kMicrosecond).Run(4000);
  ASSERT_GE(moderation.depth(), 24U);
  int64_t now = int64_t{1} << 50;
  moderation.OnTaken(now);
  moderation.OnCompleted(now);
  EXPECT_EQ(moderation.Decide(now), Decision::kWait);
  EXPECT_TRUE(moderation.gathering());
  now += InterruptModeration::kMostPatience;
  EXPECT_EQ(moderation.Decide(now), Decision::kInterrupt);
  EXPECT_FALSE(moderation.gathering());
  EXPECT_EQ(moderation.Decide(now), Decision::kNothing);
}

TEST(InterruptModerationTest, HurryForgetsWhatItWaitedFor) {
  InterruptModeration moderation;
  Driver(moderation, 32, 2 * kMicrosecond, 4 * kMicrosecond).Run(4000);
  moderation.OnCompleted(int64_t{1} << 50);
  moderation.Hurry();
  EXPECT_FALSE(moderation.gathering());
  EXPECT_EQ(moderation.Decide(int64_t{1} << 50), Decision::kNothing);
}

}  // namespace
}  // namespace bothy::virtio
