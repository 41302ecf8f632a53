#include "sockets/service_id.h"

#include <gtest/gtest.h>

namespace bothy::sockets {
namespace {

TEST(ServiceIdTest, NamesAPortInEitherCase) {
  EXPECT_EQ(PortOfServiceId("00000001-facb-11e6-bd58-64006a7986d3").value(), 1U);
  EXPECT_EQ(PortOfServiceId("0000006D-FACB-11E6-BD58-64006A7986D3").value(), 109U);
  EXPECT_EQ(PortOfServiceId("40000000-facb-11e6-bd58-64006a7986d3").value(), 0x40000000U);
  EXPECT_EQ(PortOfServiceId("ffffFFFF-facb-11e6-bd58-64006a7986d3").value(), 0xFFFFFFFFU);
}

TEST(ServiceIdTest, RefusesWhatIsNotOfTheTemplate) {
  for (const char* text :
       {"", "1", "00000001", "00000001-facb-11e6-bd58-64006a7986d4",
        "0000001-facb-11e6-bd58-64006a7986d3", "000000001-facb-11e6-bd58-64006a7986d3",
        "0x000001-facb-11e6-bd58-64006a7986d3", "0000000g-facb-11e6-bd58-64006a7986d3",
        "-0000001-facb-11e6-bd58-64006a7986d3", "{00000001-facb-11e6-bd58-64006a7986d3}"}) {
    EXPECT_EQ(PortOfServiceId(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(ServiceIdTest, WritesWhatItReads) {
  EXPECT_EQ(ServiceIdOfPort(109), "0000006d-facb-11e6-bd58-64006a7986d3");
  EXPECT_EQ(PortOfServiceId(ServiceIdOfPort(0xFEDCBA98)).value(), 0xFEDCBA98U);
}

}  // namespace
}  // namespace bothy::sockets
