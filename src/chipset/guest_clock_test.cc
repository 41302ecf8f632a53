#include "chipset/guest_clock.h"

#include <gtest/gtest.h>

#include <thread>

namespace bothy::chipset {
namespace {

uint64_t g_host_ns = 0;
uint64_t FakeHostNs() { return g_host_ns; }

TEST(GuestClockTest, BeginsStoppedAtZero) {
  g_host_ns = 5'000;
  const GuestClock clock(FakeHostNs);
  EXPECT_EQ(clock.NowNs(), 0u);
  g_host_ns = 6'000;
  EXPECT_EQ(clock.NowNs(), 0u);
}

TEST(GuestClockTest, DoesNotCountPauses) {
  g_host_ns = 1'000'000;
  GuestClock clock(FakeHostNs);
  clock.Start();
  g_host_ns += 30;
  EXPECT_EQ(clock.NowNs(), 30u);
  clock.Stop();
  g_host_ns += 1'000'000'000'000;
  EXPECT_EQ(clock.NowNs(), 30u);
  clock.Start();
  EXPECT_EQ(clock.NowNs(), 30u);
  g_host_ns += 7;
  EXPECT_EQ(clock.NowNs(), 37u);
}

TEST(GuestClockTest, StartAndStopAreIdempotent) {
  g_host_ns = 100;
  GuestClock clock(FakeHostNs);
  clock.Stop();
  clock.Start();
  g_host_ns = 110;
  clock.Start();
  EXPECT_EQ(clock.NowNs(), 10u);
  clock.Stop();
  g_host_ns = 120;
  clock.Stop();
  EXPECT_EQ(clock.NowNs(), 10u);
}

TEST(GuestClockTest, SurvivesAHostClockBelowGuestTime) {
  // Guest time restored ahead of the host's: the difference is negative.
  g_host_ns = 1'000;
  GuestClock clock(FakeHostNs);
  clock.Start();
  g_host_ns = 5'000;
  clock.Stop();
  g_host_ns = 10;
  clock.Start();
  EXPECT_EQ(clock.NowNs(), 4'000u);
  g_host_ns = 15;
  EXPECT_EQ(clock.NowNs(), 4'005u);
}

TEST(GuestClockTest, ReadsThatRaceStartAndStopAreNotTorn) {
  GuestClock clock;
  clock.Start();
  std::thread toggler([&] {
    for (int i = 0; i < 10'000; ++i) {
      clock.Stop();
      clock.Start();
    }
  });
  for (int i = 0; i < 10'000; ++i) {
    // A torn value would be off by the host's uptime.
    EXPECT_LT(clock.NowNs(), 3'600'000'000'000u);
  }
  toggler.join();
}

}  // namespace
}  // namespace bothy::chipset
