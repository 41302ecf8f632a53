#include "chipset/rtc.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_format.h"
#include "chipset/testing/fakes.h"

namespace bothy::chipset {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;
// 2024-02-29 23:59:58 UTC, a Thursday.
constexpr uint64_t kLeapEve = 1'709'251'198;

constexpr uint8_t kA = 0x0A;
constexpr uint8_t kB = 0x0B;
constexpr uint8_t kC = 0x0C;
constexpr uint8_t kD = 0x0D;
constexpr uint8_t kSet = 0x80;
constexpr uint8_t kPie = 0x40;
constexpr uint8_t kAie = 0x20;
constexpr uint8_t kUie = 0x10;
constexpr uint8_t kBinary = 0x04;
constexpr uint8_t k24h = 0x02;

uint64_t g_wall_ns = 0;
uint64_t g_host_ns = 0;

class RtcTest : public ::testing::Test {
 protected:
  RtcTest() {
    clock_.Start();
    rtc_.Start();
  }
  uint8_t Get(uint8_t index) {
    WriteIo<uint8_t>(rtc_, 0, index);
    return ReadIo<uint8_t>(rtc_, 1);
  }
  void Put(uint8_t index, uint8_t value) {
    WriteIo<uint8_t>(rtc_, 0, index);
    WriteIo<uint8_t>(rtc_, 1, value);
  }
  // Registers as they read, in hex.
  std::string ReadTime() {
    return absl::StrFormat("%02x%02x-%02x-%02x (%x) %02x:%02x:%02x", Get(0x32), Get(9), Get(8),
                           Get(7), Get(6), Get(4), Get(2), Get(0));
  }
  bool RunUntilInterrupt() {
    return RunUntil(loop_, [&] { return irq_.asserted(); });
  }

  // Before the members below, which read it.
  const bool clocks_set_ = [] {
    g_wall_ns = kLeapEve * kSecond;
    g_host_ns = 0;
    return true;
  }();
  EventLoop loop_;
  GuestClock clock_{[] { return g_host_ns; }};
  FakeIrq irq_;
  Rtc rtc_{loop_, clock_, irq_.NewLine(), [] { return g_wall_ns; }};
};

TEST_F(RtcTest, TellsTheHostsTimeInUtc) {
  EXPECT_EQ(ReadTime(), "2024-02-29 (5) 23:59:58");
  g_wall_ns += 2 * kSecond;
  EXPECT_EQ(ReadTime(), "2024-03-01 (6) 00:00:00");
}

TEST_F(RtcTest, BinaryAndTwelveHourFormats) {
  Put(kB, k24h | kBinary);
  EXPECT_EQ(ReadTime(), "1418-02-1d (5) 17:3b:3a");
  Put(kB, kBinary);
  EXPECT_EQ(Get(4), 0x80 | 11);
  Put(kB, 0);
  EXPECT_EQ(Get(4), 0x91);
  g_wall_ns += 2 * kSecond;
  EXPECT_EQ(Get(4), 0x12);
  g_wall_ns += kSecond * 12 * 3600;
  EXPECT_EQ(Get(4), 0x92);
}

TEST_F(RtcTest, TheGuestSetsAnOffsetThatLasts) {
  Put(kB, kSet | k24h);
  Put(0x32, 0x19);
  Put(9, 0x99);
  Put(8, 0x12);
  Put(7, 0x31);
  Put(4, 0x23);
  Put(2, 0x59);
  Put(0, 0x59);
  // While it is set time stands still.
  g_wall_ns += 100 * kSecond;
  EXPECT_EQ(Get(0), 0x59);
  Put(kB, k24h);
  EXPECT_EQ(ReadTime(), "1999-12-31 (6) 23:59:59");
  g_wall_ns += kSecond;
  EXPECT_EQ(ReadTime(), "2000-01-01 (7) 00:00:00");
  // Through a reset as well.
  rtc_.Stop();
  rtc_.Reset();
  rtc_.Start();
  EXPECT_EQ(ReadTime(), "2000-01-01 (7) 00:00:00");
}

TEST_F(RtcTest, TimeMaySetWithoutHoldingIt) {
  Put(4, 0x07);
  EXPECT_EQ(ReadTime(), "2024-02-29 (5) 07:59:58");
}

TEST_F(RtcTest, ANewSecondBeginsHalfASecondAfterTheDividersReset) {
  g_wall_ns += 300'000'000;
  Put(kB, kSet | k24h);
  Put(kA, 0x76);
  Put(0, 0x10);
  Put(kA, 0x26);
  Put(kB, k24h);
  EXPECT_EQ(Get(0), 0x10);
  g_wall_ns += 499'999'999;
  EXPECT_EQ(Get(0), 0x10);
  g_wall_ns += 1;
  EXPECT_EQ(Get(0), 0x11);
}

TEST_F(RtcTest, NonsenseTimesAreTakenAtTheirNearest) {
  Put(kB, kSet | k24h);
  for (const uint8_t index : {0, 2, 4, 7, 8, 9, 0x32}) Put(index, 0xFF);
  Put(kB, k24h);
  EXPECT_EQ(ReadTime(), "9999-12-31 (6) 23:59:59");
  Put(kB, kSet | k24h);
  for (const uint8_t index : {0, 2, 4, 7, 8, 9, 0x32}) Put(index, 0);
  Put(kB, k24h);
  EXPECT_EQ(ReadTime(), "0000-01-01 (7) 00:00:00");
  // The 13th hour of a dial of twelve.
  Put(kB, kSet);
  Put(4, 0x13);
  Put(kB, 0);
  EXPECT_EQ(Get(4), 0x80 | 0x11);
}

TEST_F(RtcTest, AnnouncesUpdates) {
  EXPECT_EQ(Get(kA), 0x26);
  g_wall_ns += kSecond - 2'228'000;
  EXPECT_EQ(Get(kA), 0xA6);
  g_wall_ns += 2'227'999;
  EXPECT_EQ(Get(kA), 0xA6);
  EXPECT_EQ(Get(0), 0x58);
  g_wall_ns += 1;
  EXPECT_EQ(Get(kA), 0x26);
  EXPECT_EQ(Get(0), 0x59);
  // Not while the guest holds the time.
  Put(kB, kSet | k24h);
  g_wall_ns += kSecond - 1;
  EXPECT_EQ(Get(kA), 0x26);
}

TEST_F(RtcTest, RamKeepsWhatIsWritten) {
  for (int index = 0x0E; index < 0x80; ++index) {
    if (index == 0x32) continue;
    Put(static_cast<uint8_t>(index), static_cast<uint8_t>(index ^ 0xA5));
  }
  rtc_.Stop();
  rtc_.Reset();
  for (int index = 0x0E; index < 0x80; ++index) {
    if (index == 0x32) continue;
    EXPECT_EQ(Get(static_cast<uint8_t>(index)), static_cast<uint8_t>(index ^ 0xA5));
  }
  // The index has seven bits.
  EXPECT_EQ(Get(0x80 | 0x40), 0x40 ^ 0xA5);
}

TEST_F(RtcTest, ReadOnlyRegistersStay) {
  Put(kC, 0xFF);
  Put(kD, 0);
  EXPECT_EQ(Get(kC), 0);
  EXPECT_EQ(Get(kD), 0x80);
  Put(kA, 0xFF & ~0x60);
  EXPECT_EQ(Get(kA), 0x1F);
}

TEST_F(RtcTest, WideAccessesTakeIndexAndDataTogether) {
  WriteIo<uint16_t>(rtc_, 0, 0x5540);
  EXPECT_EQ(Get(0x40), 0x55);
  EXPECT_EQ(ReadIo<uint16_t>(rtc_, 0), 0x55FF);
}

TEST_F(RtcTest, FlagsTellWhatHappenedEvenWithoutInterrupts) {
  g_wall_ns += kSecond;
  g_host_ns += kSecond;
  EXPECT_EQ(Get(kC), kUie | kPie);
  EXPECT_EQ(Get(kC), 0);
  EXPECT_FALSE(irq_.asserted());
}

TEST_F(RtcTest, UpdateInterruptEverySecond) {
  Put(kB, kUie | k24h);
  for (int second = 0; second < 3; ++second) {
    // All but a few microseconds of it have passed.
    g_wall_ns += kSecond - 5000;
    EXPECT_FALSE(irq_.asserted());
    Get(kC);
    g_wall_ns += 5000;
    ASSERT_TRUE(RunUntilInterrupt());
    EXPECT_EQ(Get(kC) & 0x90, 0x90);
    EXPECT_FALSE(irq_.asserted());
  }
}

TEST_F(RtcTest, AlarmInterruptAtItsTime) {
  Put(1, 0x00);
  Put(3, 0x00);
  Put(5, 0x00);
  g_wall_ns += 2 * kSecond - 5000;
  Put(kB, kAie | k24h);
  EXPECT_FALSE(irq_.asserted());
  g_wall_ns += 5000;
  ASSERT_TRUE(RunUntilInterrupt());
  EXPECT_EQ(Get(kC) & 0xA0, 0xA0);
}

TEST_F(RtcTest, AlarmMatchesEveryFieldItNames) {
  // At 12:34:56 tomorrow.
  Put(1, 0x56);
  Put(3, 0x34);
  Put(5, 0x12);
  Put(kB, kAie | k24h);
  g_wall_ns += 2 * kSecond;  // midnight
  const uint64_t midnight = g_wall_ns;
  g_wall_ns = midnight + ((12 * 60 + 34) * 60 + 55) * kSecond;
  EXPECT_EQ(Get(kC) & kAie, 0);
  g_wall_ns += kSecond;
  EXPECT_EQ(Get(kC) & kAie, kAie);
  // Once a day.
  g_wall_ns += 86'399 * kSecond;
  EXPECT_EQ(Get(kC) & kAie, 0);
  g_wall_ns += kSecond;
  EXPECT_EQ(Get(kC) & kAie, kAie);
}

TEST_F(RtcTest, AlarmWildcards) {
  // Every minute at second 30.
  Put(1, 0x30);
  Put(3, 0xFF);
  Put(5, 0xC0);
  g_wall_ns += 2 * kSecond;
  Get(kC);
  for (int minute = 0; minute < 3; ++minute) {
    g_wall_ns += 30 * kSecond;
    EXPECT_EQ(Get(kC) & kAie, kAie);
    g_wall_ns += 29 * kSecond;
    EXPECT_EQ(Get(kC) & kAie, 0);
    g_wall_ns += kSecond;
    EXPECT_EQ(Get(kC) & kAie, 0);
  }
}

TEST_F(RtcTest, TwelveHourAlarm) {
  Put(kB, 0);
  Put(1, 0);
  Put(3, 0);
  Put(5, 0x80 | 0x12);  // noon
  g_wall_ns += 2 * kSecond;
  Get(kC);
  g_wall_ns += kSecond * 12 * 3600 - kSecond;
  EXPECT_EQ(Get(kC) & kAie, 0);
  g_wall_ns += kSecond;
  EXPECT_EQ(Get(kC) & kAie, kAie);
}

TEST_F(RtcTest, AnAlarmOutOfRangeNeverMatches) {
  for (const uint8_t index : {1, 3, 5}) {
    Put(1, 0xFF);
    Put(3, 0xFF);
    Put(5, 0xFF);
    Put(index, 0x7A);
    Get(kC);
    g_wall_ns += kSecond * 86'400 * 10;
    EXPECT_EQ(Get(kC) & kAie, 0);
  }
}

TEST_F(RtcTest, PeriodicInterruptInGuestTime) {
  Put(kA, 0x26);  // 1024 Hz
  Put(kB, kPie | k24h);
  g_host_ns += 976'562;
  Get(kC);
  EXPECT_FALSE(irq_.asserted());
  for (int tick = 0; tick < 3; ++tick) {
    g_host_ns += 976'562;
    ASSERT_TRUE(RunUntilInterrupt());
    EXPECT_EQ(Get(kC) & 0xC0, 0xC0);
  }
}

TEST_F(RtcTest, AnInterruptThatIsNotAcknowledgedTakesNoTimer) {
  Put(kA, 0x23);  // 8192 Hz
  Put(kB, kPie | k24h);
  g_host_ns += kSecond;
  ASSERT_TRUE(RunUntilInterrupt());
  // Nothing is left to run, however much time passes.
  g_host_ns += kSecond;
  EXPECT_EQ(loop_.context().poll(), 0u);
  EXPECT_EQ(irq_.edges(), 1);
}

TEST_F(RtcTest, NothingFiresWhileStoppedAndWhatWasMissedFollows) {
  Put(1, 0xFF);
  Put(3, 0xFF);
  Put(5, 0xFF);
  Put(kB, kAie | kUie | kPie | k24h);
  loop_.context().poll();
  rtc_.Stop();
  g_wall_ns += 10 * kSecond;
  while (loop_.context().poll() != 0) {
  }
  EXPECT_FALSE(irq_.asserted());
  rtc_.Start();
  EXPECT_TRUE(irq_.asserted());
  // Guest time stood still, so no periodic one.
  EXPECT_EQ(Get(kC), 0x80 | kAie | kUie);
}

TEST_F(RtcTest, SettingTheTimeClearsTheUpdateInterrupt) {
  Put(kB, kUie | k24h);
  Put(kB, kSet | kUie | k24h);
  EXPECT_EQ(Get(kB), kSet | k24h);
}

TEST_F(RtcTest, ResetTurnsInterruptsOffAndLetsGoOfTheTime) {
  Put(kB, kSet | kPie | kAie | k24h);
  g_host_ns += kSecond;
  rtc_.Stop();
  rtc_.Reset();
  EXPECT_FALSE(irq_.asserted());
  EXPECT_EQ(Get(kB), k24h);
  g_wall_ns += kSecond;
  EXPECT_EQ(Get(0), 0x59);
}

TEST_F(RtcTest, AHostClockThatStepsBackIsFollowed) {
  Put(kB, kUie | k24h);
  g_wall_ns -= 3600 * kSecond;
  EXPECT_EQ(ReadTime(), "2024-02-29 (5) 22:59:58");
  EXPECT_EQ(Get(kC) & kUie, 0);
  g_wall_ns += kSecond;
  EXPECT_EQ(Get(kC) & kUie, kUie);
}

}  // namespace
}  // namespace bothy::chipset
