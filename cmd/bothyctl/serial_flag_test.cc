#include "cmd/bothyctl/serial_flag.h"

#include <gtest/gtest.h>

namespace bothy::bothyctl {
namespace {

TEST(SerialFlagTest, ReadsPortAndPath) {
  const SerialFlag flag = ParseSerialFlag("1=/run/com2.sock").value();
  EXPECT_EQ(flag.port, 1U);
  EXPECT_EQ(flag.socket_path, "/run/com2.sock");
  EXPECT_FALSE(flag.connect);
  EXPECT_FALSE(flag.terminal);
}

TEST(SerialFlagTest, ReadsConnect) {
  const SerialFlag flag = ParseSerialFlag("0=a=b,connect").value();
  EXPECT_EQ(flag.socket_path, "a=b");
  EXPECT_TRUE(flag.connect);
}

TEST(SerialFlagTest, ReadsTheTerminal) {
  const SerialFlag flag = ParseSerialFlag("2=-").value();
  EXPECT_EQ(flag.port, 2U);
  EXPECT_TRUE(flag.terminal);
}

TEST(SerialFlagTest, CountsComPortsFromOne) {
  EXPECT_EQ(ParseSerialFlag("com1=x").value().port, 0U);
  EXPECT_EQ(ParseSerialFlag("COM4=x").value().port, 3U);
}

TEST(SerialFlagTest, LeavesTheRangeToTheServer) {
  EXPECT_EQ(ParseSerialFlag("4=x").value().port, 4U);
}

TEST(SerialFlagTest, RefusesMalformedOnes) {
  for (const char* text : {"", "0", "=x", "a=x", "0=", "0=,connect", "com=x", "com0=x", "-1=x",
                           "0x1=x", "4294967296=x", " 0=x"}) {
    EXPECT_EQ(ParseSerialFlag(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace bothy::bothyctl
