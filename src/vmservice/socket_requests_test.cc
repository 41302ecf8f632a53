#include "vmservice/socket_requests.h"

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <optional>

#include "support/check.h"
#include "vmservice/testing/recording_machine.h"

namespace bothy::vmservice {
namespace {

using absl::StatusCode;

absl::StatusOr<ResourceChange> Translate(const std::string& text) {
  ::vmservice::VMSocketRequest request;
  CHECK(google::protobuf::TextFormat::ParseFromString(text, &request));
  return TranslateSocketRequest(request);
}

TEST(SocketRequestTest, APortNamedEitherWayIsTheSame) {
  const auto by_port = Translate("vsock_listen { port: 109 listener_path: '/a' }");
  const auto by_id = Translate(
      "hvsocket_list { service_id: '0000006D-facb-11e6-bd58-64006a7986d3' listener_path: '/a' }");
  ASSERT_TRUE(by_port.ok()) << by_port.status();
  ASSERT_TRUE(by_id.ok()) << by_id.status();
  EXPECT_EQ(by_port->resource, by_id->resource);
  RecordingMachine machine;
  for (const auto* change : {&*by_port, &*by_id}) {
    change->apply(machine, machine::Change::kAdd, {}, [](const absl::Status&) {});
    ASSERT_TRUE(machine.changes.back()->socket.has_value());
    EXPECT_EQ(machine.changes.back()->socket->port, 109U);
    EXPECT_EQ(machine.changes.back()->socket->path, "/a");
  }
}

TEST(SocketRequestTest, ErrorsOfTheMachineNameTheFieldOfTheRequest) {
  const auto change = Translate(
      "hvsocket_list { service_id: '00000001-facb-11e6-bd58-64006a7986d3' listener_path: '/a' }");
  ASSERT_TRUE(change.ok());
  RecordingMachine machine;
  std::optional<absl::Status> seen;
  change->apply(machine, machine::Change::kAdd, {}, [&](const absl::Status& s) { seen = s; });
  machine.End(0, absl::AlreadyExistsError("port: port 1 goes to /b already"));
  ASSERT_TRUE(seen.has_value());
  EXPECT_EQ(seen->code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(std::string(seen->message()), "hvsocket_list.service_id: port 1 goes to /b already");
}

TEST(SocketRequestTest, RefusesWhatNamesNoPortOrListener) {
  const std::string long_path = "/" + std::string(107, 'x');
  for (const auto& [text, field] : std::vector<std::pair<std::string, std::string>>{
           {"", "Config:"},
           {"vsock_listen { port: 1 }", "vsock_listen.listener_path:"},
           {"type: UPDATE vsock_listen { port: 1 }", "vsock_listen.listener_path:"},
           {"vsock_listen { port: 1 listener_path: '" + long_path + "' }",
            "vsock_listen.listener_path:"},
           {"hvsocket_list { service_id: '1' listener_path: '/a' }", "hvsocket_list.service_id:"},
           {"hvsocket_list { listener_path: '/a' }", "hvsocket_list.service_id:"},
           {"type: 9 vsock_listen { port: 1 listener_path: '/a' }", "type:"}}) {
    const auto change = Translate(text);
    EXPECT_EQ(change.status().code(), StatusCode::kInvalidArgument) << text;
    EXPECT_TRUE(std::string(change.status().message()).starts_with(field)) << change.status();
  }
}

TEST(SocketRequestTest, ARemovalNeedsNoListener) {
  EXPECT_TRUE(Translate("type: REMOVE vsock_listen { port: 1 }").ok());
  EXPECT_TRUE(Translate("type: REMOVE vsock_listen { port: 1 listener_path: '/a' }").ok());
}

TEST(SocketRequestTest, ACidIsAGuests) {
  EXPECT_EQ(TranslateCid("3", "key").value(), 3U);
  EXPECT_EQ(TranslateCid("4294967294", "key").value(), 0xFFFFFFFEU);
  for (const char* value : {"", "0", "2", "4294967295", "-3", "+3", " 3", "3 ", "0x3", "three"}) {
    EXPECT_EQ(TranslateCid(value, "key").status().code(), StatusCode::kInvalidArgument) << value;
  }
}

TEST(SocketRequestTest, ThePathLeavesRoomForPorts) {
  ::vmservice::HVSocketConfig config;
  machine::SocketsConfig out;
  EXPECT_TRUE(TranslateSockets(config, out).ok());
  EXPECT_EQ(out.path, "");
  config.set_path("/" + std::string(95, 'x'));
  EXPECT_TRUE(TranslateSockets(config, out).ok());
  EXPECT_EQ(out.path, config.path());
  config.set_path("/" + std::string(96, 'x'));
  EXPECT_EQ(TranslateSockets(config, out).code(), StatusCode::kInvalidArgument);
  config.set_path("/x/");
  EXPECT_EQ(TranslateSockets(config, out).code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace bothy::vmservice
