#include "cmd/bothyctl/screen_text.h"

#include <gtest/gtest.h>

namespace bothy::bothyctl {
namespace {

TEST(ScreenTextTest, WhatFitsStaysAsItIs) {
  EXPECT_EQ(CutToSize("", {}), "");
  EXPECT_EQ(CutToSize("one\n\nthree\n", {.columns = 5, .rows = 3}), "one\n\nthree\n");
}

TEST(ScreenTextTest, LinesThatDontFitAreCounted) {
  EXPECT_EQ(CutToSize("1\n2\n3\n4\n", {.columns = 80, .rows = 3}), "1\n2\n... 2 more lines\n");
  EXPECT_EQ(CutToSize("1\n2\n", {.columns = 4, .rows = 1}), "... \n");
  EXPECT_EQ(CutToSize("1\n2\n", {.columns = 80, .rows = 0}), "");
}

TEST(ScreenTextTest, LongLinesAreCutAtWholeCharacters) {
  EXPECT_EQ(CutToSize("abcdef\n", {.columns = 4}), "abcd\n");
  EXPECT_EQ(CutToSize("abc\u00e4\n", {.columns = 4}), "abc\n");
  EXPECT_EQ(CutToSize("ab\u00e4x\n", {.columns = 4}), "ab\u00e4\n");
  EXPECT_EQ(CutToSize("\x80\x80\x80\n", {.columns = 2}), "\n");
}

}  // namespace
}  // namespace bothy::bothyctl
