#include "inspect/to_protobuf.h"

#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>

namespace bothy::inspect {
namespace {

std::string Json(const Value& value) {
  std::string json;
  EXPECT_TRUE(google::protobuf::util::MessageToJsonString(ToProtobuf(value), &json).ok());
  return json;
}

TEST(ToProtobufTest, EveryKind) {
  const Value value = Directory{{{"bool", true},
                                 {"empty", Directory()},
                                 {"null", Null()},
                                 {"real", 0.5},
                                 {"signed", int64_t{-3}},
                                 {"text", std::string("a")},
                                 {"unsigned", uint64_t{7}}}};
  const google::protobuf::Value wire = ToProtobuf(value);
  const auto& fields = wire.struct_value().fields();
  ASSERT_EQ(fields.size(), 7U);
  EXPECT_TRUE(fields.at("bool").bool_value());
  EXPECT_TRUE(fields.at("empty").has_struct_value());
  EXPECT_EQ(fields.at("null").kind_case(), google::protobuf::Value::kNullValue);
  EXPECT_EQ(fields.at("real").number_value(), 0.5);
  EXPECT_EQ(fields.at("signed").number_value(), -3);
  EXPECT_EQ(fields.at("text").string_value(), "a");
  EXPECT_EQ(fields.at("unsigned").number_value(), 7);
}

TEST(ToProtobufTest, IntegersThatNoDoubleHoldsAreText) {
  EXPECT_EQ(Json(uint64_t{1} << 53), "9007199254740992");
  EXPECT_EQ(Json((uint64_t{1} << 53) + 1), "\"9007199254740993\"");
  EXPECT_EQ(Json(std::numeric_limits<uint64_t>::max()), "\"18446744073709551615\"");
  EXPECT_EQ(Json(-(int64_t{1} << 53)), "-9007199254740992");
  EXPECT_EQ(Json(-(int64_t{1} << 53) - 1), "\"-9007199254740993\"");
  EXPECT_EQ(Json(std::numeric_limits<int64_t>::min()), "\"-9223372036854775808\"");
}

TEST(ToProtobufTest, WhatIsNoNumberIsText) {
  EXPECT_EQ(Json(std::numeric_limits<double>::infinity()), "\"inf\"");
  EXPECT_EQ(Json(-std::numeric_limits<double>::infinity()), "\"-inf\"");
  EXPECT_EQ(Json(std::numeric_limits<double>::quiet_NaN()), "\"nan\"");
}

TEST(ToProtobufTest, TextOfAnImageBecomesUtf8) {
  google::protobuf::Value parsed;
  EXPECT_TRUE(parsed.ParseFromString(ToProtobuf(std::string("\xFF\x00z", 3)).SerializeAsString()));
}

}  // namespace
}  // namespace bothy::inspect
