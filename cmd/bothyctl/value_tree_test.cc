#include "cmd/bothyctl/value_tree.h"

#include <gtest/gtest.h>

#include "cmd/bothyctl/json_form.h"

namespace bothy::bothyctl {
namespace {

std::string Text(std::string_view json) {
  google::protobuf::Value value;
  const absl::Status status = ParseJson(json, &value);
  EXPECT_TRUE(status.ok()) << status;
  return ValueTreeText(value);
}

TEST(ValueTreeTest, PrintsAValueAlone) {
  EXPECT_EQ(Text("3"), "3\n");
  EXPECT_EQ(Text("0.5"), "0.5\n");
  EXPECT_EQ(Text("-7"), "-7\n");
  EXPECT_EQ(Text("true"), "true\n");
  EXPECT_EQ(Text("\"0xfee00000\""), "0xfee00000\n");
  EXPECT_EQ(Text("null"), "null\n");
}

TEST(ValueTreeTest, IndentsFoldersAndMarksThoseNotFilledIn) {
  EXPECT_EQ(Text(R"({"com1": {"connected": true, "queues": null}, "layout": "flat"})"),
            "com1/\n"
            "  connected: true\n"
            "  queues/\n"
            "layout: flat\n");
}

TEST(ValueTreeTest, OrdersNumbersByValue) {
  EXPECT_EQ(Text(R"({"vp-10": 1, "vp-2": 2, "vp-1": 3, "a": 4, "vp-01": 5, "vp": 6})"),
            "a: 4\nvp: 6\nvp-01: 5\nvp-1: 3\nvp-2: 2\nvp-10: 1\n");
}

TEST(ValueTreeTest, NumbersAList) {
  EXPECT_EQ(Text(R"({"ranges": [1, {"end": 2}]})"), "ranges/\n  0: 1\n  1/\n    end: 2\n");
}

TEST(ValueTreeTest, DisarmsWhatAGuestMayHaveNamed) {
  EXPECT_EQ(Text(R"({"\u001b[2J": "a\nb"})"), "?[2J: a; b\n");
}

}  // namespace
}  // namespace bothy::bothyctl
