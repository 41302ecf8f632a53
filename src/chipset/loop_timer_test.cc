#include "chipset/loop_timer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

#include "chipset/testing/fakes.h"

namespace bothy::chipset {
namespace {

constexpr uint64_t kAnHourNs = 3'600'000'000'000;

TEST(LoopTimerTest, FiresOncePerSetting) {
  EventLoop loop;
  int fired = 0;
  LoopTimer timer(loop, [&] { ++fired; });
  timer.Set(0);
  ASSERT_TRUE(RunUntil(loop, [&] { return fired == 1; }));
  loop.context().poll();
  EXPECT_EQ(fired, 1);
  timer.Set(1000);
  EXPECT_TRUE(RunUntil(loop, [&] { return fired == 2; }));
}

TEST(LoopTimerTest, ASettingReplacesTheOneBefore) {
  EventLoop loop;
  int fired = 0;
  LoopTimer timer(loop, [&] { ++fired; });
  timer.Set(kAnHourNs);
  loop.context().poll();
  timer.Set(0);
  ASSERT_TRUE(RunUntil(loop, [&] { return fired == 1; }));
  timer.Set(0);
  timer.Set(kAnHourNs);
  loop.context().poll();
  EXPECT_EQ(fired, 1);
}

TEST(LoopTimerTest, CancelHoldsEvenWhenTheTimerHasExpired) {
  EventLoop loop;
  int fired = 0;
  LoopTimer timer(loop, [&] { ++fired; });
  timer.Set(0);
  // Arms the timer; its expiry waits in the loop.
  loop.context().poll_one();
  timer.Cancel();
  loop.context().poll();
  EXPECT_EQ(fired, 0);
}

TEST(LoopTimerTest, MayBeSetFromItsCallback) {
  EventLoop loop;
  int fired = 0;
  std::unique_ptr<LoopTimer> timer;
  timer = std::make_unique<LoopTimer>(loop, [&] {
    if (++fired < 5) timer->Set(0);
  });
  timer->Set(0);
  EXPECT_TRUE(RunUntil(loop, [&] { return fired == 5; }));
}

TEST(LoopTimerTest, NeverFiresAfterItsDestruction) {
  LoopThread thread("timers");
  for (int round = 0; round < 200; ++round) {
    auto alive = std::make_unique<std::atomic<bool>>(true);
    std::atomic<int> fired{0};
    {
      LoopTimer timer(thread.loop(), [&] {
        EXPECT_TRUE(alive->load());
        ++fired;
      });
      timer.Set(0);
      if (round % 2 == 0) {
        while (fired == 0) std::this_thread::yield();
        timer.Set(0);
      }
    }
    alive->store(false);
    alive.reset();
  }
}

TEST(LoopTimerTest, MayOutliveAStoppedLoopsWork) {
  EventLoop loop;
  LoopTimer timer(loop, [] { FAIL(); });
  timer.Set(0);
  loop.Stop();
}

}  // namespace
}  // namespace bothy::chipset
