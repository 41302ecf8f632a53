#include "cmd/bothyctl/nic_flag.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/guid.h"

namespace bothy::bothyctl {
namespace {

using testing::HasSubstr;

std::string Parsed(std::string_view text) {
  const auto flag = ParseNicFlag(text);
  return flag.ok() ? flag->nic.ShortDebugString() : std::string(flag.status().message());
}

TEST(NicFlagTest, Backends) {
  EXPECT_EQ(Parsed("user"), "user { }");
  EXPECT_EQ(
      Parsed("user,network=10.1.0.0/24,forward=tcp:2222:22,forward=udp:53:5353,forward=1:2"),
      "user { cidr: \"10.1.0.0/24\" ports { host_port: 2222 guest_port: 22 } ports { "
      "host_port: 53 guest_port: 5353 protocol: UDP } ports { host_port: 1 guest_port: 2 } }");
  EXPECT_EQ(Parsed("tap=tap0"), "tap { name: \"tap0\" }");
  EXPECT_EQ(Parsed("switch=br0,port=p,mac=12:34:56:78:9A:BC,name=lan,id=x"),
            "nic_id: \"x\" port_id: \"p\" mac_address: \"12-34-56-78-9A-BC\" switch_id: \"br0\" "
            "nic_name: \"lan\"");
}

TEST(NicFlagTest, SaysWhatIsWrong) {
  EXPECT_THAT(Parsed(""), HasSubstr("neither user"));
  EXPECT_THAT(Parsed("mac=12-34-56-78-9A-BC"), HasSubstr("neither user"));
  EXPECT_THAT(Parsed("user,tap=tap0"), HasSubstr("one of"));
  EXPECT_THAT(Parsed("bridge=br0"), HasSubstr("\"bridge=br0\" is none of"));
  EXPECT_THAT(Parsed("user=1"), HasSubstr("none of"));
  EXPECT_THAT(Parsed("tap="), HasSubstr("write tap="));
  EXPECT_THAT(Parsed("tap=t,mac=02-00-00-00-00-01,mac=02-00-00-00-00-02"), HasSubstr("mac twice"));
  EXPECT_THAT(Parsed("tap=t,forward=1:2"), HasSubstr("forward is for user"));
  EXPECT_THAT(Parsed("user,forward=22"), HasSubstr("HOST_PORT:GUEST_PORT"));
  EXPECT_THAT(Parsed("user,forward=sctp:1:2"), HasSubstr("HOST_PORT:GUEST_PORT"));
}

TEST(NicFlagTest, CardsGetIdentitiesThatNoOthersHave) {
  ::vmservice::VMConfig config;
  config.mutable_devices_config()->add_nic_config()->set_nic_id("ABC");
  ASSERT_TRUE(AddNics({*ParseNicFlag("user"), *ParseNicFlag("tap=t,id=abc"), *ParseNicFlag("user")},
                      &config)
                  .ok());
  const auto& nics = config.devices_config().nic_config();
  ASSERT_EQ(nics.size(), 3);
  EXPECT_TRUE(Guid::Parse(nics[0].nic_id()).ok());
  EXPECT_EQ(nics[1].nic_id(), "abc");
  EXPECT_TRUE(nics[1].has_tap());
  EXPECT_TRUE(Guid::Parse(nics[2].nic_id()).ok());
  EXPECT_NE(nics[0].nic_id(), nics[2].nic_id());
  const absl::Status twice =
      AddNics({*ParseNicFlag("user,id=ab"), *ParseNicFlag("tap=t,id=AB")}, &config);
  EXPECT_THAT(std::string(twice.message()), HasSubstr("two cards have the id ab"));
  EXPECT_EQ(nics.size(), 3);
}

}  // namespace
}  // namespace bothy::bothyctl
