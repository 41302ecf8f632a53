#include "support/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace bothy {
namespace {

TEST(Utf8Test, WhatIsNotWellFormedIsReplacedByteByByte) {
  const std::string kBad = "\xEF\xBF\xBD";
  EXPECT_EQ(ValidUtf8("a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80"),
            "a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80");
  EXPECT_EQ(ValidUtf8("\xF4\x8F\xBF\xBF"), "\xF4\x8F\xBF\xBF");
  EXPECT_EQ(ValidUtf8("\xED\x9F\xBF"), "\xED\x9F\xBF");
  EXPECT_EQ(ValidUtf8("\x80x"), kBad + "x");
  EXPECT_EQ(ValidUtf8("\xC3"), kBad);
  EXPECT_EQ(ValidUtf8("\xC0\xAF"), kBad + kBad);
  EXPECT_EQ(ValidUtf8("\xE0\x80\x80"), kBad + kBad + kBad);
  EXPECT_EQ(ValidUtf8("\xED\xA0\x80"), kBad + kBad + kBad);             // a surrogate
  EXPECT_EQ(ValidUtf8("\xF4\x90\x80\x80"), kBad + kBad + kBad + kBad);  // beyond U+10FFFF
  EXPECT_EQ(ValidUtf8("\xE2\x82"), kBad + kBad);
  EXPECT_EQ(ValidUtf8("\xF0\x9F\x98"), kBad + kBad + kBad);
  EXPECT_EQ(ValidUtf8("\xFF"), kBad);
}

}  // namespace
}  // namespace bothy
