#include "support/json_string.h"

#include <gtest/gtest.h>

#include <string>

namespace bothy {
namespace {

TEST(JsonEscapedTest, WhatJsonAndTerminalsTakeForSomethingElseIsEscaped) {
  EXPECT_EQ(JsonEscaped("a\"b\\c\nd\x1b[2J\x7f", 100), "a\\\"b\\\\c\\nd\\u001b[2J\\u007f");
  EXPECT_EQ(JsonEscaped(std::string("\0", 1), 100), "\\u0000");
  EXPECT_EQ(JsonEscaped("\xC2\x9B", 100), "\\u009b");
}

TEST(JsonEscapedTest, OtherCharactersStay) {
  EXPECT_EQ(JsonEscaped("\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80", 100),
            "\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80");
}

TEST(JsonEscapedTest, WhatIsNotUtf8IsReplaced) {
  EXPECT_EQ(JsonEscaped("a\xFFz\xE2\x82", 100), "a\xEF\xBF\xBDz\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(JsonEscapedTest, NothingIsCutInTwo) {
  for (size_t limit = 6; limit < 40; ++limit) {
    for (const std::string part : {"\xF0\x9F\x98\x80", "\n", "\x01", "\xFF"}) {
      std::string text;
      for (int i = 0; i < 40; ++i) text += part;
      const std::string escaped = JsonEscaped(text, limit);
      EXPECT_LE(escaped.size(), limit + 3);
      ASSERT_TRUE(escaped.ends_with("..."));
      const std::string whole = JsonEscaped(part, 100);
      EXPECT_EQ((escaped.size() - 3) % whole.size(), 0U) << limit << " " << escaped;
    }
  }
}

}  // namespace
}  // namespace bothy
