#include "vmservice/unknown_fields.h"

#include <gmock/gmock.h>
#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>
#include <gtest/gtest.h>

#include <string>

#include "vmservice.pb.h"

namespace bothy::vmservice {
namespace {

namespace wire = ::vmservice;
using testing::StartsWith;

// As if a newer client had set field `number` of `message`.
void AddUnknown(google::protobuf::Message& message, int number) {
  message.GetReflection()->MutableUnknownFields(&message)->AddVarint(number, 1);
}

std::string Refusal(const google::protobuf::Message& message) {
  const absl::Status status = RefuseUnknownFields(message);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(UnknownFieldsTest, AMessageWithoutAnyPasses) {
  wire::CreateVMRequest request;
  EXPECT_TRUE(RefuseUnknownFields(request).ok());
  request.mutable_config()->mutable_serial_config()->add_ports();
  (*request.mutable_config()->mutable_extra_data())["key"] = "value";
  EXPECT_TRUE(RefuseUnknownFields(request).ok());
}

TEST(UnknownFieldsTest, AtTheRootTheMessageIsNamed) {
  wire::CreateVMRequest request;
  AddUnknown(request, 9);
  EXPECT_THAT(Refusal(request), StartsWith("CreateVMRequest: unknown field 9;"));
}

TEST(UnknownFieldsTest, InASubmessageItsPathIsNamed) {
  wire::CreateVMRequest request;
  AddUnknown(*request.mutable_config()->mutable_memory_config(), 17);
  EXPECT_THAT(Refusal(request), StartsWith("config.memory_config: unknown field 17;"));
}

TEST(UnknownFieldsTest, InAOneofItsPathIsNamed) {
  wire::CreateVMRequest request;
  AddUnknown(*request.mutable_config()->mutable_direct_boot(), 4);
  EXPECT_THAT(Refusal(request), StartsWith("config.direct_boot: unknown field 4;"));
}

TEST(UnknownFieldsTest, InARepeatedMessageItsIndexIsNamed) {
  wire::CreateVMRequest request;
  request.mutable_config()->mutable_serial_config()->add_ports();
  AddUnknown(*request.mutable_config()->mutable_serial_config()->add_ports(), 5);
  EXPECT_THAT(Refusal(request), StartsWith("config.serial_config.ports[1]: unknown field 5;"));
}

TEST(UnknownFieldsTest, AtTheDeepestTheyAreFound) {
  wire::CreateVMRequest request;
  auto& nic = *request.mutable_config()->mutable_devices_config()->add_nic_config();
  nic.mutable_user()->add_ports();
  nic.mutable_user()->add_ports();
  AddUnknown(*nic.mutable_user()->mutable_ports(1), 100);
  EXPECT_THAT(Refusal(request),
              StartsWith("config.devices_config.nic_config[0].user.ports[1]: unknown field 100;"));
}

TEST(UnknownFieldsTest, EveryWireTypeCounts) {
  for (int type = 0; type < 4; ++type) {
    wire::PropertiesVMRequest request;
    auto& unknown = *request.GetReflection()->MutableUnknownFields(&request);
    if (type == 0) unknown.AddFixed32(50, 0);
    if (type == 1) unknown.AddFixed64(50, 0);
    if (type == 2) unknown.AddLengthDelimited(50, "");
    if (type == 3) unknown.AddGroup(50);
    EXPECT_THAT(Refusal(request), StartsWith("PropertiesVMRequest: unknown field 50;"));
  }
}

TEST(UnknownFieldsTest, TheySurviveTheWire) {
  // A message of a newer contract, as bytes: field 1 known, field 3 unknown.
  wire::InspectVMRequest request;
  request.set_query("a");
  std::string bytes = request.SerializeAsString();
  bytes += std::string("\x1a\x01x", 3);
  wire::InspectVMRequest parsed;
  ASSERT_TRUE(parsed.ParseFromString(bytes));
  EXPECT_THAT(Refusal(parsed), StartsWith("InspectVMRequest: unknown field 3;"));
}

}  // namespace
}  // namespace bothy::vmservice
