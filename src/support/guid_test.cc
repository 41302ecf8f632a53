#include "support/guid.h"

#include <gtest/gtest.h>

namespace bothy {
namespace {

constexpr Guid kBatRegion =
    Guid::FromFields(0x2DC27766, 0xF623, 0x4200, {0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08});

TEST(GuidTest, ShowsTheNumbersBigEndian) {
  EXPECT_EQ(kBatRegion.ToString(), "2dc27766-f623-4200-9d64-115e9bfd4a08");
  EXPECT_EQ(kBatRegion.bytes[0], 0x66);
}

TEST(GuidTest, ReadsWhatItShowsWithAndWithoutBraces) {
  const Guid guid = Guid::Random();
  EXPECT_EQ(*Guid::Parse(guid.ToString()), guid);
  EXPECT_EQ(*Guid::Parse("{2DC27766-F623-4200-9D64-115E9BFD4A08}"), kBatRegion);
}

TEST(GuidTest, RefusesWhatIsNone) {
  for (const char* text :
       {"", "{}", "2dc27766-f623-4200-9d64-115e9bfd4a0", "2dc27766f623-4200-9d64-115e9bfd4a08-",
        "2dc27766-f623-4200-9d64-115e9bfd4a0g", "{2dc27766-f623-4200-9d64-115e9bfd4a08"}) {
    EXPECT_FALSE(Guid::Parse(text).ok()) << text;
  }
}

TEST(GuidTest, RandomOnesDiffer) { EXPECT_NE(Guid::Random(), Guid::Random()); }

}  // namespace
}  // namespace bothy
