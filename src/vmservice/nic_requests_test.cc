#include "vmservice/nic_requests.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>

#include "vmservice/create_request.h"
#include "vmservice/modify_request.h"
#include "vmservice/testing/status_matchers.h"

namespace bothy::vmservice {
namespace {

using absl::StatusCode;
using machine::NicConfig;
using machine::NicTuning;

constexpr char kId[] = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";

absl::StatusOr<NicConfig> Translate(const std::string& text,
                                    NicPurpose purpose = NicPurpose::kAdd) {
  ::vmservice::NICConfig nic;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &nic)) << text;
  return TranslateNic(nic, "nic", purpose);
}
// Of a card that is fine but for `text`.
absl::Status StatusOf(const std::string& text, NicPurpose purpose = NicPurpose::kAdd) {
  return Translate("nic_id: '" + std::string(kId) + "' " + text, purpose).status();
}
absl::StatusOr<machine::MachineConfig> TranslateVm(const std::string& text) {
  ::vmservice::CreateVMRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(
      "config { memory_config { memory_mb: 64 } direct_boot { kernel_path: '/k' } " + text + " }",
      &request))
      << text;
  return TranslateCreateRequest(request);
}

TEST(NicRequestsTest, EveryFieldArrives) {
  const auto tap = Translate(
      "nic_id: '{3F2504E0-4F89-11D3-9A0C-0305E82C3301}' nic_name: 'lan' "
      "mac_address: '02-34-56-78-9A-BC' tap { name: 'tap0' }");
  ASSERT_TRUE(tap.ok()) << tap.status();
  EXPECT_EQ(tap->id.ToString(), kId);
  EXPECT_EQ(tap->name, "lan");
  EXPECT_EQ(tap->mac->ToString(), "02-34-56-78-9A-BC");
  EXPECT_EQ(std::get<net::TapOptions>(tap->backend->where).name, "tap0");

  const auto port = Translate("nic_id: '" + std::string(kId) + "' switch_id: 'br0' port_id: 'p'");
  ASSERT_TRUE(port.ok()) << port.status();
  EXPECT_EQ(port->mac, net::MacAddress::ForNic(port->id));
  EXPECT_EQ(std::get<net::SwitchOptions>(port->backend->where).switch_id, "br0");
  EXPECT_EQ(std::get<net::SwitchOptions>(port->backend->where).port_id, "p");

  const auto user = Translate("nic_id: '" + std::string(kId) +
                              "' user { cidr: '10.9.0.0/24' ports { host_port: 2222 guest_port: 22 "
                              "} ports { host_port: 2222 guest_port: 53 protocol: UDP } }");
  ASSERT_TRUE(user.ok()) << user.status();
  const auto& options = std::get<net::UserOptions>(user->backend->where);
  EXPECT_EQ(options.cidr, "10.9.0.0/24");
  EXPECT_FALSE(options.host_loopback);
  ASSERT_EQ(options.forwards.size(), 2U);
  EXPECT_EQ(options.forwards[0].host_port, 2222);
  EXPECT_EQ(options.forwards[0].guest_port, 22);
  EXPECT_EQ(options.forwards[1].protocol, net::Forward::Protocol::kUdp);
}

TEST(NicRequestsTest, BadInputNamesItsField) {
  constexpr auto kBad = StatusCode::kInvalidArgument;
  EXPECT_THAT(Translate("tap { name: 't' }").status(), IsAbout(kBad, "nic.nic_id"));
  EXPECT_THAT(Translate("nic_id: 'x' tap { name: 't' }").status(), IsAbout(kBad, "nic.nic_id"));
  for (const char* const mac : {"12-34-56-78-9A", "1234567890ab", "01-00-00-00-00-00",
                                "00-00-00-00-00-00", "FF-FF-FF-FF-FF-FF", "12-34-56-78-9A-BG"}) {
    EXPECT_THAT(StatusOf("tap { name: 't' } mac_address: '" + std::string(mac) + "'"),
                IsAbout(kBad, "nic.mac_address"))
        << mac;
  }
  EXPECT_THAT(StatusOf(""), IsAbout(kBad, "nic"));
  EXPECT_THAT(StatusOf("port_id: 'p' tap { name: 't' }"), IsAbout(kBad, "nic.port_id"));
  EXPECT_THAT(StatusOf("switch_id: 'br0' tap { name: 't' }"), IsAbout(kBad, "nic.switch_id"));
  EXPECT_THAT(StatusOf("tap {}"), IsAbout(kBad, "nic.tap.name"));
  for (const char* const name : {"a/b", "..", "a b", "longer-than-15-bytes", "tap%d"}) {
    EXPECT_THAT(StatusOf("tap { name: '" + std::string(name) + "' }"),
                IsAbout(kBad, "nic.tap.name"))
        << name;
  }
  EXPECT_THAT(StatusOf("user { cidr: '10.0.2.0' }"), IsAbout(kBad, "nic.user.cidr"));
  EXPECT_THAT(StatusOf("user { ports { guest_port: 1 } }"),
              IsAbout(kBad, "nic.user.ports[0].host_port"));
  EXPECT_THAT(StatusOf("user { ports { host_port: 1 guest_port: 65536 } }"),
              IsAbout(kBad, "nic.user.ports[0].guest_port"));
  EXPECT_THAT(StatusOf("user { ports { host_port: 1 guest_port: 1 protocol: 7 } }"),
              IsAbout(kBad, "nic.user.ports[0].protocol"));
  EXPECT_THAT(StatusOf("user { ports { host_port: 1 guest_port: 1 } ports { host_port: 1 "
                       "guest_port: 2 } }"),
              IsAbout(StatusCode::kAlreadyExists, "nic.user.ports[1].host_port"));
  EXPECT_THAT(StatusOf("tap { name: 't' } nic_name: '" + std::string(129, 'n') + "'"),
              IsAbout(kBad, "nic.nic_name"));
}

TEST(NicRequestsTest, ARemovalNeedsTheIdentityAlone) {
  const auto nic = Translate("nic_id: '" + std::string(kId) + "'", NicPurpose::kRemove);
  ASSERT_TRUE(nic.ok()) << nic.status();
  EXPECT_FALSE(nic->mac.has_value());
  EXPECT_FALSE(nic->backend.has_value());
  EXPECT_THAT(StatusOf("", NicPurpose::kUpdate), IsAbout(StatusCode::kInvalidArgument, "nic"));
}

TEST(NicRequestsTest, IdentitiesAndAddressesAreDistinct) {
  const std::string first = "devices_config { nic_config { nic_id: '" + std::string(kId) +
                            "' tap { name: 't' } mac_address: '02-00-00-00-00-01' } ";
  EXPECT_THAT(
      TranslateVm(first + "nic_config { nic_id: '{" + kId + "}' tap { name: 'u' } } }").status(),
      IsAbout(StatusCode::kAlreadyExists, "config.devices_config.nic_config[1].nic_id"));
  EXPECT_THAT(
      TranslateVm(first + "nic_config { nic_id: '00000000-4f89-11d3-9a0c-0305e82c3301' tap { "
                          "name: 'u' } mac_address: '02-00-00-00-00-01' } }")
          .status(),
      IsAbout(StatusCode::kAlreadyExists, "config.devices_config.nic_config[1].mac_address"));
}

TEST(NicRequestsTest, Tuning) {
  const auto entry = [](const std::string& what, const std::string& value) {
    return " extra_data { key: 'bothy.nic." + std::string(kId) + "." + what + "' value: '" + value +
           "' }";
  };
  const auto config =
      TranslateVm(entry("vhost", "off") + entry("rx_bps", "1000000") + entry("tx_bps", "2000000"));
  ASSERT_TRUE(config.ok()) << config.status();
  const NicTuning& tuning = config->nic_tuning.at(*Guid::Parse(kId));
  EXPECT_EQ(tuning.vhost, NicTuning::Vhost::kOff);
  EXPECT_EQ(tuning.limits.receive_bps, 1'000'000U);
  EXPECT_EQ(tuning.limits.send_bps, 2'000'000U);
  const auto refused = [](const std::string& text) {
    EXPECT_THAT(TranslateVm(text).status(),
                IsAbout(StatusCode::kInvalidArgument,
                        text.substr(0, 0) + "config.extra_data[\"bothy.nic." +
                            text.substr(text.find("bothy.nic.") + 10,
                                        text.find("' value") - text.find("bothy.nic.") - 10) +
                            "\"]"))
        << text;
  };
  refused(entry("vhost", "maybe"));
  refused(entry("rx_bps", "fast"));
  refused(entry("rx_bps", "-1"));
  refused(entry("rx_bps", "9999"));
  refused(entry("queues", "1"));
  refused(" extra_data { key: 'bothy.nic.lan.vhost' value: 'on' }");
  refused(" extra_data { key: 'bothy.nic." + std::string(kId) + "' value: 'on' }");
  EXPECT_THAT(TranslateVm(entry("vhost", "on") + entry("tx_bps", "2000000")).status(),
              IsAbout(StatusCode::kInvalidArgument,
                      "config.extra_data[\"bothy.nic." + std::string(kId) + ".vhost\"]"));
  EXPECT_THAT(
      TranslateVm(entry("host_loopback", "on") + " devices_config { nic_config { nic_id: '" + kId +
                  "' tap { name: 't' } } }")
          .status(),
      IsAbout(StatusCode::kInvalidArgument,
              "config.extra_data[\"bothy.nic." + std::string(kId) + ".host_loopback\"]"));
}

}  // namespace
}  // namespace bothy::vmservice
