#include "net/mac_address.h"

#include <gtest/gtest.h>

#include <set>

namespace bothy::net {
namespace {

TEST(MacAddressTest, ReadsAndWritesTheContractsForm) {
  const auto address = MacAddress::ParseForNic("12-34-56-78-9A-bc");
  ASSERT_TRUE(address.ok()) << address.status();
  EXPECT_EQ(address->bytes, (std::array<uint8_t, 6>{0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC}));
  EXPECT_EQ(address->ToString(), "12-34-56-78-9A-BC");
}

TEST(MacAddressTest, RefusesWhatNoNicMayHaveAndWhatIsNone) {
  for (const char* text :
       {"", "12-34-56-78-9A", "12-34-56-78-9A-BC-", "12-34-56-78-9A-BC-DE", "12:34:56:78:9A:BC",
        "12-34-56-78-9A-BG", "1-234-56-78-9A-BC", " 2-34-56-78-9A-BC", "+2-34-56-78-9A-BC",
        "00-00-00-00-00-00", "FF-FF-FF-FF-FF-FF", "01-00-5E-00-00-01", "12-34-56-78-9A+BC"}) {
    const auto address = MacAddress::ParseForNic(text);
    EXPECT_TRUE(absl::IsInvalidArgument(address.status())) << text;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(
      MacAddress::ParseForNic(std::string_view("12-34-56-78-9A-B\0", 17)).status()));
}

TEST(MacAddressTest, GeneratesOneForEachNicThatStaysTheSame) {
  std::set<MacAddress> seen;
  for (int i = 0; i < 1000; ++i) {
    const Guid nic = Guid::Random();
    const MacAddress address = MacAddress::ForNic(nic);
    EXPECT_EQ(address, MacAddress::ForNic(nic));
    EXPECT_FALSE(address.is_multicast());
    EXPECT_EQ(address.bytes[0] & 2, 2) << "locally administered";
    EXPECT_TRUE(MacAddress::ParseForNic(address.ToString()).ok());
    seen.insert(address);
  }
  EXPECT_EQ(seen.size(), 1000U);
  // What a guest has been told stays true in the next version.
  EXPECT_EQ(MacAddress::ForNic(*Guid::Parse("01234567-89ab-cdef-0123-456789abcdef")).ToString(),
            "B2-18-58-E9-BF-24");
}

}  // namespace
}  // namespace bothy::net
