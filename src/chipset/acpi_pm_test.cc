#include "chipset/acpi_pm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "chipset/legacy_ports.h"
#include "chipset/testing/fakes.h"

namespace bothy::chipset {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kStatus = 0;
constexpr uint64_t kEnable = 2;
constexpr uint64_t kControl = 4;
constexpr uint64_t kTimer = 8;
constexpr uint16_t kTimerBit = 0x0001;
constexpr uint16_t kPowerButton = 0x0100;
constexpr uint16_t kSleepEnable = 0x2000;

uint64_t g_host_ns = 0;

class AcpiPmTest : public ::testing::Test {
 protected:
  AcpiPmTest() {
    g_host_ns = 0;
    clock_.Start();
    pm_.Start();
  }
  // Nanoseconds at which the 32-bit timer has counted `ticks`.
  static uint64_t AtTicks(uint64_t ticks) { return ticks * 1'000'000'000 / kPmTimerHz + 1; }

  EventLoop loop_;
  GuestClock clock_{[] { return g_host_ns; }};
  FakeIrq sci_;
  FakePowerSink power_;
  AcpiPm pm_{loop_, clock_, sci_.NewLine(), power_};
};

TEST_F(AcpiPmTest, TimerCountsAt3579545Hz) {
  EXPECT_EQ(ReadIo<uint32_t>(pm_, kTimer), 0u);
  g_host_ns = 1'000'000'000;
  EXPECT_EQ(ReadIo<uint32_t>(pm_, kTimer), 3'579'545u);
  g_host_ns = 1'000'000'000'000;
  EXPECT_EQ(ReadIo<uint32_t>(pm_, kTimer), 3'579'545'000u);
  EXPECT_EQ(ReadIo<uint16_t>(pm_, kTimer), 3'579'545'000u & 0xFFFF);
  EXPECT_EQ(ReadIo<uint16_t>(pm_, kTimer + 2), 3'579'545'000u >> 16);
}

TEST_F(AcpiPmTest, TimerWrapsAt32Bits) {
  g_host_ns = AtTicks(uint64_t{1} << 32);
  EXPECT_EQ(ReadIo<uint32_t>(pm_, kTimer), 0u);
  // 500 years.
  g_host_ns = 15'768'000'000'000'000'000u;
  EXPECT_EQ(ReadIo<uint64_t>(pm_, kTimer) >> 32, 0xFFFFFFFFu);
}

TEST_F(AcpiPmTest, TimerStandsStillWhilePaused) {
  g_host_ns = 1'000'000'000;
  clock_.Stop();
  g_host_ns = 9'000'000'000;
  EXPECT_EQ(ReadIo<uint32_t>(pm_, kTimer), 3'579'545u);
}

TEST_F(AcpiPmTest, TimerIgnoresWrites) {
  WriteIo<uint32_t>(pm_, kTimer, 77);
  EXPECT_EQ(ReadIo<uint32_t>(pm_, kTimer), 0u);
}

TEST_F(AcpiPmTest, TimerStatusFollowsTheTopBit) {
  g_host_ns = AtTicks((uint64_t{1} << 31) - 1);
  EXPECT_EQ(ReadIo<uint16_t>(pm_, kStatus), 0);
  g_host_ns = AtTicks(uint64_t{1} << 31);
  EXPECT_EQ(ReadIo<uint16_t>(pm_, kStatus), kTimerBit);
  WriteIo<uint16_t>(pm_, kStatus, kTimerBit);
  EXPECT_EQ(ReadIo<uint16_t>(pm_, kStatus), 0);
  g_host_ns = AtTicks(uint64_t{1} << 32);
  EXPECT_EQ(ReadIo<uint16_t>(pm_, kStatus), kTimerBit);
}

TEST_F(AcpiPmTest, TimerInterruptComesByItself) {
  g_host_ns = AtTicks(uint64_t{1} << 31) - 1000;
  WriteIo<uint16_t>(pm_, kEnable, kTimerBit);
  EXPECT_FALSE(sci_.asserted());
  g_host_ns += 2000;
  ASSERT_TRUE(RunUntil(loop_, [&] { return sci_.asserted(); }));
  WriteIo<uint16_t>(pm_, kStatus, kTimerBit);
  EXPECT_FALSE(sci_.asserted());
}

TEST_F(AcpiPmTest, NoTimerInterruptWhileStopped) {
  g_host_ns = AtTicks(uint64_t{1} << 31) - 1000;
  WriteIo<uint16_t>(pm_, kEnable, kTimerBit);
  pm_.Stop();
  g_host_ns += 2000;
  loop_.context().poll();
  EXPECT_FALSE(sci_.asserted());
  pm_.Start();
  EXPECT_TRUE(RunUntil(loop_, [&] { return sci_.asserted(); }));
}

TEST_F(AcpiPmTest, PowerButtonRaisesTheSciUntilTheGuestClearsIt) {
  pm_.PressPowerButton();
  EXPECT_FALSE(sci_.asserted());
  EXPECT_EQ(ReadIo<uint16_t>(pm_, kStatus), kPowerButton);
  WriteIo<uint16_t>(pm_, kEnable, kPowerButton);
  EXPECT_TRUE(sci_.asserted());
  // Zeros clear nothing; nor do other bits.
  WriteIo<uint16_t>(pm_, kStatus, static_cast<uint16_t>(~kPowerButton));
  EXPECT_TRUE(sci_.asserted());
  // The status register's upper byte alone.
  WriteIo<uint8_t>(pm_, kStatus + 1, kPowerButton >> 8);
  EXPECT_FALSE(sci_.asserted());
  EXPECT_EQ(ReadIo<uint16_t>(pm_, kStatus), 0);
}

TEST_F(AcpiPmTest, StatusAndEnableInOneAccess) {
  pm_.PressPowerButton();
  WriteIo<uint32_t>(pm_, kStatus, 0xFFFF0000u | kPowerButton);
  EXPECT_EQ(ReadIo<uint32_t>(pm_, kStatus), 0x05210000u);
  EXPECT_FALSE(sci_.asserted());
}

TEST_F(AcpiPmTest, SleepTypeFivePowersOff) {
  WriteIo<uint16_t>(pm_, kControl, kSleepTypeS5 << 10);
  EXPECT_THAT(power_.events, IsEmpty());
  WriteIo<uint16_t>(pm_, kControl, kSleepTypeS5 << 10 | kSleepEnable);
  EXPECT_THAT(power_.events, ElementsAre(PowerEvent::kPowerOff));
}

TEST_F(AcpiPmTest, SleepTypeAndEnableMayComeAsOneByte) {
  WriteIo<uint8_t>(pm_, kControl + 1, (kSleepTypeS5 << 10 | kSleepEnable) >> 8);
  EXPECT_THAT(power_.events, ElementsAre(PowerEvent::kPowerOff));
}

TEST_F(AcpiPmTest, OtherSleepTypesDoNothing) {
  for (int type = 0; type < 8; ++type) {
    if (type == kSleepTypeS5) continue;
    WriteIo<uint16_t>(pm_, kControl, static_cast<uint16_t>(type << 10 | kSleepEnable));
  }
  EXPECT_THAT(power_.events, IsEmpty());
}

TEST_F(AcpiPmTest, AcpiModeIsAlwaysOnAndSleepEnableReadsAsZero) {
  EXPECT_EQ(ReadIo<uint16_t>(pm_, kControl), 1);
  WriteIo<uint16_t>(pm_, kControl, 0x2002);
  EXPECT_EQ(ReadIo<uint16_t>(pm_, kControl), 3);
}

TEST_F(AcpiPmTest, ResetForgetsAndLowersTheSci) {
  WriteIo<uint16_t>(pm_, kEnable, kPowerButton);
  pm_.PressPowerButton();
  ASSERT_TRUE(sci_.asserted());
  g_host_ns = AtTicks(uint64_t{3} << 31);
  pm_.Stop();
  pm_.Reset();
  EXPECT_FALSE(sci_.asserted());
  EXPECT_EQ(ReadIo<uint32_t>(pm_, kStatus), 0u);
}

}  // namespace
}  // namespace bothy::chipset
