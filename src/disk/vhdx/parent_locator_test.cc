#include "disk/vhdx/parent_locator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "disk/vhdx/format.h"
#include "support/endian.h"

namespace bothy::disk::vhdx {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ParentLocator SomeLocator() {
  ParentLocator locator;
  locator.Set(kParentLinkage, "{83ED0EC3-24C8-49A6-A959-5E4BF1288BFB}");
  locator.Set(kAbsoluteWin32Path, R"(\\?\d:\path2\sub3\parent.vhdx)");
  locator.Set(kRelativePath, R"(..\..\path2\sub3\parent.vhdx)");
  return locator;
}

TEST(ParentLocatorTest, ParsesWhatItBuilds) {
  ParentLocator locator = SomeLocator();
  locator.Set("other", "Grüße, 世界 𝄞");
  const auto bytes = BuildParentLocator(locator);
  ASSERT_TRUE(bytes.ok());
  const auto parsed = ParseParentLocator(*bytes, kMiB);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->entries, locator.entries);
}

TEST(ParentLocatorTest, TriesTheRelativePathFirst) {
  const ParentReference reference = SomeLocator().Reference("/images/child.vhdx");
  EXPECT_EQ(reference.child_path, "/images/child.vhdx");
  EXPECT_THAT(reference.candidate_paths,
              ElementsAre("../../path2/sub3/parent.vhdx", "/path2/sub3/parent.vhdx"));
}

TEST(ParentLocatorTest, SpellsPaths) {
  EXPECT_EQ(*SpellPath("base.vhdx", false), R"(.\base.vhdx)");
  EXPECT_EQ(*SpellPath("../a/base.vhdx", false), R"(..\a\base.vhdx)");
  EXPECT_EQ(*SpellPath("/images/base.vhdx", true), R"(\\?\images\base.vhdx)");
  EXPECT_EQ(*SpellPath(R"(\\?\C:\base.vhdx)", true), R"(\\?\C:\base.vhdx)");
  EXPECT_FALSE(SpellPath("/images/base.vhdx", false).ok());
  EXPECT_FALSE(SpellPath("base.vhdx", true).ok());
  EXPECT_FALSE(SpellPath("a\\b", false).ok());
  ParentLocator locator;
  locator.Set(kAbsoluteWin32Path, *SpellPath("/images/base.vhdx", true));
  locator.Set(kRelativePath, *SpellPath("base.vhdx", false));
  EXPECT_THAT(locator.Reference("").candidate_paths,
              ElementsAre("./base.vhdx", "/images/base.vhdx"));
}

TEST(ParentLocatorTest, NamesWhatIsWrong) {
  struct Case {
    size_t at;
    uint32_t value;
    size_t bytes;
    const char* message;
  };
  const Case cases[] = {
      {0, 0, 4, "ParentLocator.LocatorType"},    {18, 60000, 2, "ParentLocator.KeyValueCount"},
      {20, 0, 4, "ParentLocator[0].KeyOffset"},  {20, 0xFFFFFFFF, 4, "ParentLocator[0].KeyOffset"},
      {24, 100000, 4, "ParentLocator[0].Value"}, {28, 0, 2, "ParentLocator[0].KeyOffset"},
      {28, 3, 2, "ParentLocator[0].KeyOffset"},  {30, 0xFFFE, 2, "ParentLocator[0]"},
      {18, 0, 2, "no parent_linkage"},           {18, 1, 2, "has no path"},
  };
  for (const Case& wrong : cases) {
    std::vector<uint8_t> bytes = *BuildParentLocator(SomeLocator());
    uint8_t value[4];
    StoreLe(value, wrong.value);
    std::copy_n(value, wrong.bytes, bytes.begin() + static_cast<ptrdiff_t>(wrong.at));
    const auto parsed = ParseParentLocator(bytes, 0);
    ASSERT_FALSE(parsed.ok()) << wrong.message;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(wrong.message));
  }
  EXPECT_FALSE(ParseParentLocator(std::vector<uint8_t>(19), 0).ok());
  ParentLocator locator = SomeLocator();
  locator.Set(kParentLinkage, "{not a GUID}");
  EXPECT_FALSE(ParseParentLocator(*BuildParentLocator(locator), 0).ok());
}

}  // namespace
}  // namespace bothy::disk::vhdx
