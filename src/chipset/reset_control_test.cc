#include "chipset/reset_control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "chipset/legacy_ports.h"
#include "chipset/testing/fakes.h"

namespace bothy::chipset {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(ResetControlTest, ResetsWhenBitTwoRises) {
  FakePowerSink power;
  ResetControl reset(power);
  WriteIo<uint8_t>(reset, 0, 0x02);
  EXPECT_THAT(power.events, IsEmpty());
  EXPECT_EQ(ReadIo<uint8_t>(reset, 0), 0x02);
  WriteIo<uint8_t>(reset, 0, 0x06);
  EXPECT_THAT(power.events, ElementsAre(PowerEvent::kReset));
  WriteIo<uint8_t>(reset, 0, 0x06);
  EXPECT_THAT(power.events, ElementsAre(PowerEvent::kReset));
  WriteIo<uint8_t>(reset, 0, 0x00);
  WriteIo<uint8_t>(reset, 0, 0x0E);
  EXPECT_THAT(power.events, ElementsAre(PowerEvent::kReset, PowerEvent::kReset));
}

TEST(ResetControlTest, TheFadtsResetValueDoesItInOneWrite) {
  FakePowerSink power;
  ResetControl reset(power);
  WriteIo<uint8_t>(reset, 0, kResetControlValue);
  EXPECT_THAT(power.events, ElementsAre(PowerEvent::kReset));
  // And again in the machine's next life.
  reset.Reset();
  WriteIo<uint8_t>(reset, 0, kResetControlValue);
  EXPECT_THAT(power.events, ElementsAre(PowerEvent::kReset, PowerEvent::kReset));
}

TEST(ResetControlTest, KeepsOnlyTheBitsItHas) {
  FakePowerSink power;
  ResetControl reset(power);
  WriteIo<uint8_t>(reset, 0, 0xFB);
  EXPECT_EQ(ReadIo<uint8_t>(reset, 0), 0x0A);
  EXPECT_THAT(power.events, IsEmpty());
}

TEST(KeyboardResetTest, PulsesTheResetLineAndNothingElse) {
  FakePowerSink power;
  KeyboardReset keyboard(power);
  for (int command = 0; command < 0xFE; ++command) {
    WriteIo<uint8_t>(keyboard, 0, static_cast<uint8_t>(command));
  }
  WriteIo<uint8_t>(keyboard, 0, 0xFF);
  EXPECT_THAT(power.events, IsEmpty());
  EXPECT_EQ(ReadIo<uint8_t>(keyboard, 0), 0);
  WriteIo<uint8_t>(keyboard, 0, 0xFE);
  EXPECT_THAT(power.events, ElementsAre(PowerEvent::kReset));
}

}  // namespace
}  // namespace bothy::chipset
