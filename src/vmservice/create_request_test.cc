#include "vmservice/create_request.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "vmservice/testing/status_matchers.h"

namespace bothy::vmservice {
namespace {

namespace wire = ::vmservice;
using absl::StatusCode;
using machine::PowerAction;

// The least that makes a VM, and `more` of VMConfig in text form.
wire::CreateVMRequest Request(const std::string& more = "") {
  wire::CreateVMRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::MergeFromString(
      "memory_config { memory_mb: 64 } direct_boot { kernel_path: '/boot/vmlinuz' }",
      request.mutable_config()));
  EXPECT_TRUE(google::protobuf::TextFormat::MergeFromString(more, request.mutable_config()))
      << more;
  return request;
}

absl::Status StatusOf(const wire::CreateVMRequest& request) {
  return TranslateCreateRequest(request).status();
}

TEST(CreateRequestTest, ARequestWithoutAConfigIsRefused) {
  EXPECT_THAT(StatusOf({}), Is(StatusCode::kInvalidArgument, "config: is missing"));
}

TEST(CreateRequestTest, TheLeastOfAConfigGetsTheDefaults) {
  const auto config = TranslateCreateRequest(Request());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->memory.ram_mib, 64U);
  EXPECT_FALSE(config->memory.allow_overcommit);
  EXPECT_FALSE(config->memory.report_free_pages);
  EXPECT_EQ(config->memory.low_mmio_gap_mib, 0U);
  EXPECT_EQ(config->memory.high_mmio_base_mib, 0U);
  EXPECT_EQ(config->memory.high_mmio_gap_mib, 0U);
  EXPECT_EQ(config->processors.count, 1U);
  EXPECT_EQ(config->direct_boot.kernel_path, "/boot/vmlinuz");
  EXPECT_EQ(config->direct_boot.initrd_path, "");
  EXPECT_EQ(config->direct_boot.command_line, "");
  EXPECT_FALSE(config->direct_boot.guest_unpacks);
  EXPECT_TRUE(config->serial_ports.empty());
  EXPECT_EQ(config->power.shutdown, PowerAction::kHalt);
  EXPECT_EQ(config->power.reset, PowerAction::kHalt);
  EXPECT_EQ(config->power.crash, PowerAction::kHalt);
}

TEST(CreateRequestTest, EverySupportedFieldArrives) {
  const auto config = TranslateCreateRequest(Request(R"(
      memory_config { allow_overcommit: true cold_discard_hint: true low_mmio_gap_in_mb: 2048
                      high_mmio_base_in_mb: 8192 high_mmio_gap_in_mb: 1024 }
      processor_config { processor_count: 3 processor_weight: 100 processor_limit: 100000 }
      devices_config {}
      serial_config { ports { port: 0 socket_path: '/s/com1' }
                      ports { port: 3 socket_path: '/s/com4' connect: true } }
      direct_boot { initrd_path: '/boot/initrd' kernel_cmdline: 'console=ttyS0' }
      windows_options {}
      hvsocket_config {}
      extra_data { key: 'bothy.kernel.unpack' value: 'guest' }
      extra_data { key: 'io.containerd.anything' value: 'its own affair' }
      guest_power_actions { shutdown: RESTART reset: RESTART crash: RESTART })"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->memory.allow_overcommit);
  EXPECT_TRUE(config->memory.report_free_pages);
  EXPECT_EQ(config->memory.low_mmio_gap_mib, 2048U);
  EXPECT_EQ(config->memory.high_mmio_base_mib, 8192U);
  EXPECT_EQ(config->memory.high_mmio_gap_mib, 1024U);
  EXPECT_EQ(config->processors.count, 3U);
  ASSERT_EQ(config->serial_ports.size(), 2U);
  EXPECT_EQ(config->serial_ports[0].port, 0U);
  EXPECT_EQ(config->serial_ports[0].socket_path, "/s/com1");
  EXPECT_FALSE(config->serial_ports[0].connect_only);
  EXPECT_EQ(config->serial_ports[1].port, 3U);
  EXPECT_EQ(config->serial_ports[1].socket_path, "/s/com4");
  EXPECT_TRUE(config->serial_ports[1].connect_only);
  EXPECT_EQ(config->direct_boot.initrd_path, "/boot/initrd");
  EXPECT_EQ(config->direct_boot.command_line, "console=ttyS0");
  EXPECT_TRUE(config->direct_boot.guest_unpacks);
  EXPECT_EQ(config->power.shutdown, PowerAction::kRestart);
  EXPECT_EQ(config->power.reset, PowerAction::kRestart);
  EXPECT_EQ(config->power.crash, PowerAction::kRestart);
}

TEST(CreateRequestTest, PowerActionsAreIndependent) {
  const auto config =
      TranslateCreateRequest(Request("guest_power_actions { shutdown: HALT reset: RESTART }"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->power.shutdown, PowerAction::kHalt);
  EXPECT_EQ(config->power.reset, PowerAction::kRestart);
  EXPECT_EQ(config->power.crash, PowerAction::kHalt);
}

TEST(CreateRequestTest, ZeroMeansTheDefaultWhereTheContractSaysSo) {
  const auto config = TranslateCreateRequest(
      Request("processor_config { processor_count: 0 processor_weight: 0 processor_limit: 0 }"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->processors.count, 1U);
}

TEST(CreateRequestTest, TheHostUnpacksOnRequestToo) {
  const auto config =
      TranslateCreateRequest(Request("extra_data { key: 'bothy.kernel.unpack' value: 'host' }"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->direct_boot.guest_unpacks);
}

TEST(CreateRequestTest, LogIdsHaveALimit) {
  wire::CreateVMRequest request = Request("");
  request.set_log_id(std::string(256, 'i'));
  EXPECT_TRUE(TranslateCreateRequest(request).ok());
  request.set_log_id(std::string(257, 'i'));
  EXPECT_THAT(StatusOf(request), IsAbout(StatusCode::kInvalidArgument, "log_id"));
}

TEST(CreateRequestTest, ForeignExtraDataIsNamedInOneLine) {
  EXPECT_EQ(ForeignExtraData(Request("").config()), "");
  EXPECT_EQ(
      ForeignExtraData(
          Request("extra_data { key: 'b.x' } extra_data { key: 'a' } extra_data { key: 'bothy.c' }")
              .config()),
      "config.extra_data: left alone what isn't this server's: \"a\", \"b.x\"");
  wire::CreateVMRequest request = Request("");
  for (int i = 0; i < 100'000; ++i) {
    (*request.mutable_config()->mutable_extra_data())["key." + std::to_string(i)] = "";
  }
  const std::string text = ForeignExtraData(request.config());
  EXPECT_LT(text.size(), 1000U);
  EXPECT_TRUE(text.ends_with(" and 99992 more")) << text;
}

// What is refused: `more` of VMConfig, the status, and the message in full.
struct Refusal {
  std::string more;
  StatusCode code;
  std::string message;
};

class CreateRequestRefusalTest : public testing::TestWithParam<Refusal> {};

TEST_P(CreateRequestRefusalTest, NamesTheFieldAndTheReason) {
  EXPECT_THAT(StatusOf(Request(GetParam().more)), Is(GetParam().code, GetParam().message));
}

constexpr StatusCode kInvalid = StatusCode::kInvalidArgument;

INSTANTIATE_TEST_SUITE_P(
    Memory, CreateRequestRefusalTest,
    testing::Values(
        Refusal{"memory_config { memory_mb: 0 }", kInvalid,
                "config.memory_config.memory_mb: must be at least 1"},
        Refusal{"memory_config { memory_mb: 4294967297 }", StatusCode::kResourceExhausted,
                "config.memory_config.memory_mb: 4294967297 MiB is more than any host has"},
        Refusal{"memory_config { memory_mb: 18446744073709551615 }", StatusCode::kResourceExhausted,
                "config.memory_config.memory_mb: 18446744073709551615 MiB is more than any host "
                "has"},
        Refusal{"memory_config { cold_discard_hint: true }", kInvalid,
                "config.memory_config.cold_discard_hint: contradicts allow_overcommit=false, which "
                "keeps all "
                "memory locked"},
        Refusal{"memory_config { deferred_commit: true }", kInvalid,
                "config.memory_config.deferred_commit: contradicts allow_overcommit=false, which "
                "commits all memory at once"},
        Refusal{"memory_config { low_mmio_gap_in_mb: 511 }", kInvalid,
                "config.memory_config.low_mmio_gap_in_mb: 511 is out of range 512..3072"},
        Refusal{"memory_config { low_mmio_gap_in_mb: 3073 }", kInvalid,
                "config.memory_config.low_mmio_gap_in_mb: 3073 is out of range 512..3072"},
        Refusal{"memory_config { high_mmio_base_in_mb: 4095 }", kInvalid,
                "config.memory_config.high_mmio_base_in_mb: 4095 is out of range "
                "4096..4294967296"},
        Refusal{"memory_config { high_mmio_base_in_mb: 4294967297 }", kInvalid,
                "config.memory_config.high_mmio_base_in_mb: 4294967297 is out of range "
                "4096..4294967296"},
        Refusal{"memory_config { high_mmio_gap_in_mb: 4294967297 }", kInvalid,
                "config.memory_config.high_mmio_gap_in_mb: 4294967297 is out of range "
                "0..4294967296"}));

INSTANTIATE_TEST_SUITE_P(
    Processors, CreateRequestRefusalTest,
    testing::Values(Refusal{"processor_config { processor_weight: 10001 }", kInvalid,
                            "config.processor_config.processor_weight: 10001 is out of range "
                            "0..10000"},
                    Refusal{"processor_config { processor_limit: 100001 }", kInvalid,
                            "config.processor_config.processor_limit: 100001 is out of range "
                            "0..100000"}));

INSTANTIATE_TEST_SUITE_P(
    Boot, CreateRequestRefusalTest,
    testing::Values(Refusal{"direct_boot { kernel_cmdline: 'a\\000b' }", kInvalid,
                            "config.direct_boot.kernel_cmdline: contains a NUL byte"},
                    Refusal{"direct_boot { kernel_path: '/a\\000b' }", kInvalid,
                            "config.direct_boot.kernel_path: contains a NUL byte"},
                    Refusal{"direct_boot { initrd_path: '/a\\000b' }", kInvalid,
                            "config.direct_boot.initrd_path: contains a NUL byte"}));

TEST(CreateRequestTest, AKernelMustBeNamed) {
  wire::CreateVMRequest request = Request();
  request.mutable_config()->mutable_direct_boot()->clear_kernel_path();
  EXPECT_THAT(StatusOf(request), Is(kInvalid, "config.direct_boot.kernel_path: is empty"));
  request.mutable_config()->clear_BootConfig();
  EXPECT_THAT(StatusOf(request), IsAbout(kInvalid, "config.direct_boot"));
}

INSTANTIATE_TEST_SUITE_P(
    Serial, CreateRequestRefusalTest,
    testing::Values(
        Refusal{"serial_config { ports { port: 4 socket_path: '/s' } }", kInvalid,
                "config.serial_config.ports[0].port: 4 is out of range 0..3"},
        Refusal{"serial_config { ports { port: 0 } }", kInvalid,
                "config.serial_config.ports[0].socket_path: is empty"},
        Refusal{"serial_config { ports { port: 0 socket_path: '/a\\000' } }", kInvalid,
                "config.serial_config.ports[0].socket_path: contains a NUL byte"},
        Refusal{"serial_config { ports { port: 0 socket_path: '/a/' } }", kInvalid,
                "config.serial_config.ports[0].socket_path: /a/: a socket path can't end in a "
                "slash"},
        Refusal{"serial_config { ports { port: 0 socket_path: '/" + std::string(107, 'a') + "' } }",
                kInvalid,
                "config.serial_config.ports[0].socket_path: a socket path of 108 bytes; Unix "
                "sockets allow 107"},
        Refusal{"serial_config { ports { port: 0 socket_path: '/a' } "
                "ports { port: 1 socket_path: '/b' } ports { port: 1 socket_path: '/c' } }",
                kInvalid, "config.serial_config.ports[2].port: COM2 is ports[1] already"},
        Refusal{"serial_config { ports { port: 0 socket_path: '/a' } "
                "ports { port: 1 socket_path: '/a' } }",
                kInvalid,
                "config.serial_config.ports[1].socket_path: is the socket of ports[0] already"},
        Refusal{"serial_config { ports { port: 0 socket_path: '/a/s' } "
                "ports { port: 1 socket_path: '/a/.//./s' } }",
                kInvalid,
                "config.serial_config.ports[1].socket_path: is the socket of ports[0] already"}));

INSTANTIATE_TEST_SUITE_P(
    ExtraData, CreateRequestRefusalTest,
    testing::Values(
        Refusal{"extra_data { key: 'bothy.kernel.unpack' value: 'both' }", kInvalid,
                "config.extra_data[\"bothy.kernel.unpack\"]: \"both\" is neither \"host\" nor "
                "\"guest\""},
        Refusal{"extra_data { key: 'bothy.kernel.unpack' value: '' }", kInvalid,
                "config.extra_data[\"bothy.kernel.unpack\"]: \"\" is neither \"host\" nor "
                "\"guest\""},
        Refusal{"extra_data { key: 'bothy.' value: '1' }", kInvalid,
                "config.extra_data[\"bothy.\"]: unknown key; docs/extra-data.md lists those there "
                "are"},
        // Of several, the first in alphabetical order: the answer is the same every time.
        Refusal{"extra_data { key: 'bothy.zz' value: '1' } extra_data { key: 'bothy.b' } "
                "extra_data { key: 'bothy.m' }",
                kInvalid,
                "config.extra_data[\"bothy.b\"]: unknown key; docs/extra-data.md lists those there "
                "are"}));

INSTANTIATE_TEST_SUITE_P(
    PowerActions, CreateRequestRefusalTest,
    testing::Values(Refusal{"guest_power_actions { shutdown: 3 }", kInvalid,
                            "config.guest_power_actions.shutdown: 3 is no GuestPowerAction"},
                    Refusal{"guest_power_actions { reset: -1 }", kInvalid,
                            "config.guest_power_actions.reset: -1 is no GuestPowerAction"},
                    Refusal{"guest_power_actions { crash: 2147483647 }", kInvalid,
                            "config.guest_power_actions.crash: 2147483647 is no GuestPowerAction"},
                    Refusal{"guest_power_actions { watchdog: 3 }", kInvalid,
                            "config.guest_power_actions.watchdog: 3 is no GuestPowerAction"}));

// Fields whose capability comes later: refused by their path, never ignored.
struct Later {
  std::string more;
  std::string path;
};

class CreateRequestUnimplementedTest : public testing::TestWithParam<Later> {};

TEST_P(CreateRequestUnimplementedTest, NamesTheField) {
  EXPECT_THAT(StatusOf(Request(GetParam().more)),
              IsAbout(StatusCode::kUnimplemented, GetParam().path));
}

INSTANTIATE_TEST_SUITE_P(
    Fields, CreateRequestUnimplementedTest,
    testing::Values(
        Later{"memory_config { allow_overcommit: true deferred_commit: true }",
              "config.memory_config.deferred_commit"},
        Later{"memory_config { hot_hint: true }", "config.memory_config.hot_hint"},
        Later{"memory_config { cold_hint: true }", "config.memory_config.cold_hint"},
        Later{"processor_config { processor_weight: 1 }",
              "config.processor_config.processor_weight"},
        Later{"processor_config { processor_limit: 1 }", "config.processor_config.processor_limit"},
        Later{"devices_config { windows_device { instance_id: 'x' } }",
              "config.devices_config.windows_device[0]"},
        Later{"uefi { firmware_path: '/OVMF.fd' }", "config.uefi"},
        Later{"windows_options { cpu_group_id: 1 }", "config.windows_options.cpu_group_id"},
        Later{"extra_data { key: 'bothy.max_processors' value: '4' }",
              "config.extra_data[\"bothy.max_processors\"]"},
        Later{"extra_data { key: 'bothy.max_memory_mb' value: '4' }",
              "config.extra_data[\"bothy.max_memory_mb\"]"},
        Later{"guest_power_actions { watchdog: RESTART }", "config.guest_power_actions.watchdog"},
        Later{"guest_power_actions { watchdog: HALT }", "config.guest_power_actions.watchdog"}));

// The edges of every range are inside it.
class CreateRequestEdgeTest : public testing::TestWithParam<std::string> {};

TEST_P(CreateRequestEdgeTest, IsAccepted) {
  EXPECT_TRUE(StatusOf(Request(GetParam())).ok()) << StatusOf(Request(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(
    Ranges, CreateRequestEdgeTest,
    testing::Values("memory_config { memory_mb: 1 }", "memory_config { memory_mb: 4294967296 }",
                    "memory_config { low_mmio_gap_in_mb: 512 }",
                    "memory_config { low_mmio_gap_in_mb: 3072 }",
                    "memory_config { high_mmio_base_in_mb: 4096 }",
                    "memory_config { high_mmio_gap_in_mb: 4294967296 }",
                    // How many there can be is the host's to say.
                    "processor_config { processor_count: 4294967295 }",
                    "serial_config { ports { port: 3 socket_path: 's' } }",
                    "guest_power_actions { shutdown: HALT reset: HALT crash: HALT }",
                    "extra_data { key: '' value: '' }", "extra_data { key: 'bothy' value: '' }"));

TEST(CreateRequestTest, FieldsThatThisContractDoesNotHaveAreRefused) {
  wire::CreateVMRequest request = Request();
  request.mutable_config()
      ->mutable_memory_config()
      ->GetReflection()
      ->MutableUnknownFields(request.mutable_config()->mutable_memory_config())
      ->AddVarint(10, 1);
  EXPECT_THAT(StatusOf(request), IsAbout(kInvalid, "config.memory_config"));
}

}  // namespace
}  // namespace bothy::vmservice
