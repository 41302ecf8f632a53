#include "cmd/bothyctl/vm_flags.h"

#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <filesystem>

#include "cmd/bothyctl/json_form.h"
#include "support/testing/test_folder.h"

namespace bothy::bothyctl {
namespace {

using ::vmservice::VMConfig;

class VmFlagsTest : public ::testing::Test {
 protected:
  // A configuration file with that text.
  [[nodiscard]] std::string File(const std::string& json) const {
    return folder_.WriteText("config.json", json);
  }

  static VmFlags Parse(std::vector<std::string> words) {
    CLI::App app;
    VmFlags flags;
    AddVmFlags(app, &flags);
    std::reverse(words.begin(), words.end());  // as CLI11 wants them
    app.parse(words);
    return flags;
  }

  static absl::StatusOr<::vmservice::CreateVMRequest> Request(std::vector<std::string> words) {
    return BuildCreateRequest(Parse(std::move(words)));
  }

  static void ExpectConfig(std::vector<std::string> words, const std::string& json) {
    const auto request = Request(std::move(words));
    ASSERT_TRUE(request.ok()) << request.status();
    VMConfig expected;
    ASSERT_TRUE(ParseJson(json, &expected).ok());
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(request->config(), expected))
        << request->config().DebugString();
  }

  const TestFolder folder_;
};

TEST_F(VmFlagsTest, TakesDisks) {
  ExpectConfig({"--kernel", "/k", "--disk", "/nowhere/a.vhdx", "--disk", "/nowhere/b.vhd,ro",
                "--disk", "/c,type=raw,controller=3,lun=7", "--pmem", "/nowhere/root.img,ro"},
               R"({"direct_boot": {"kernel_path": "/k"},
                   "memory_config": {"memory_mb": 512, "allow_overcommit": true},
                   "devices_config": {
                     "scsi_disks": [
                       {"host_path": "/nowhere/a.vhdx", "type": "SCSI_DISK_TYPE_VHDX"},
                       {"lun": 1, "host_path": "/nowhere/b.vhd", "type": "SCSI_DISK_TYPE_VHD1",
                        "read_only": true},
                       {"controller": 3, "lun": 7, "host_path": "/c",
                        "type": "SCSI_DISK_TYPE_PHYSICAL"}],
                     "vpmem_disks": [{"host_path": "/nowhere/root.img", "read_only": true,
                                      "type": "SCSI_DISK_TYPE_PHYSICAL"}]}})");
}

TEST_F(VmFlagsTest, DescribesAVmAlone) {
  ExpectConfig({"--kernel", "/k", "--initrd", "/i", "--cmdline", "console=ttyS0 panic=-1", "--cpus",
                "2", "--memory", "2G", "--serial", "1=/s,connect", "--guest-unpacks", "--on-reset",
                "restart", "--on-shutdown", "halt", "--extra", "key=a=b"},
               R"({"direct_boot": {"kernel_path": "/k", "initrd_path": "/i",
                                   "kernel_cmdline": "console=ttyS0 panic=-1"},
                   "memory_config": {"memory_mb": 2048, "allow_overcommit": true},
                   "processor_config": {"processor_count": 2},
                   "serial_config": {"ports": [{"port": 1, "socket_path": "/s", "connect": true}]},
                   "guest_power_actions": {"reset": "RESTART", "shutdown": "HALT"},
                   "extra_data": {"key": "a=b", "bothy.kernel.unpack": "guest"}})");
}

TEST_F(VmFlagsTest, HasDefaultsWithoutAFile) {
  ExpectConfig({}, R"({"memory_config": {"memory_mb": 512, "allow_overcommit": true}})");
  ExpectConfig({"--populate"}, R"({"memory_config": {"memory_mb": 512}})");
}

TEST_F(VmFlagsTest, LeavesAFileAsItIs) {
  const std::string json = R"({"memoryConfig": {"memoryMb": "128"},
      "directBoot": {"kernelPath": "relative"},
      "serial_config": {"ports": [{"port": 0, "socket_path": "com1"}]},
      "devices_config": {"scsi_disks": [{"lun": 3, "type": "SCSI_DISK_TYPE_VHDX"}]}})";
  ExpectConfig({"--config", File(json)}, json);
}

TEST_F(VmFlagsTest, ReplacesOnlyWhatIsGiven) {
  const std::string file = File(R"({
      "memory_config": {"memory_mb": 128, "hot_hint": true},
      "processor_config": {"processor_count": 1, "processor_weight": 200},
      "direct_boot": {"kernel_path": "/k", "kernel_cmdline": "old"},
      "serial_config": {"ports": [{"port": 0, "socket_path": "/a"}, {"port": 1, "socket_path": "/b"}]},
      "guest_power_actions": {"crash": "HALT"},
      "extra_data": {"x": "1", "y": "2"}})");
  ExpectConfig({"--config", file, "--memory", "256", "--overcommit", "--cpus", "4", "--cmdline",
                "new", "--serial", "0=/c", "--on-crash", "restart", "--extra", "y=3"},
               R"({"memory_config": {"memory_mb": 256, "hot_hint": true, "allow_overcommit": true},
      "processor_config": {"processor_count": 4, "processor_weight": 200},
      "direct_boot": {"kernel_path": "/k", "kernel_cmdline": "new"},
      "serial_config": {"ports": [{"port": 1, "socket_path": "/b"}, {"port": 0, "socket_path": "/c"}]},
      "guest_power_actions": {"crash": "RESTART"},
      "extra_data": {"x": "1", "y": "3"}})");
}

TEST_F(VmFlagsTest, KernelReplacesUefi) {
  const std::string file = File(R"({"uefi": {"firmware_path": "/f"}})");
  ExpectConfig({"--config", file, "--kernel", "/k"}, R"({"direct_boot": {"kernel_path": "/k"}})");
}

TEST_F(VmFlagsTest, RefusesDirectBootDetailsOfAUefiFile) {
  const std::string file = File(R"({"uefi": {"firmware_path": "/f"}})");
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"--initrd", "/i"}, {"--cmdline", "x"}, {"--guest-unpacks"}}) {
    std::vector<std::string> all = {"--config", file};
    all.insert(all.end(), words.begin(), words.end());
    const auto request = Request(all);
    EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(request.status().message().find(words[0]), 0U) << request.status();
  }
}

TEST_F(VmFlagsTest, MakesPathsAbsolute) {
  const auto request = Request({"--kernel", "k", "--initrd", "i", "--serial", "0=s"}).value();
  const std::string folder = std::filesystem::current_path().string();
  EXPECT_EQ(request.config().direct_boot().kernel_path(), folder + "/k");
  EXPECT_EQ(request.config().direct_boot().initrd_path(), folder + "/i");
  EXPECT_EQ(request.config().serial_config().ports(0).socket_path(), folder + "/s");
}

TEST_F(VmFlagsTest, CarriesTheLogId) {
  EXPECT_EQ(Request({"--log-id", "vm1"}).value().log_id(), "vm1");
}

TEST_F(VmFlagsTest, NamesFileAndFieldOfBadJson) {
  const std::string file = File(R"({"memory_config": {"memory": 1}})");
  const auto unknown = Request({"--config", file});
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(unknown.status().message().find(file), absl::string_view::npos);
  EXPECT_NE(unknown.status().message().find("memory_config"), absl::string_view::npos)
      << unknown.status();
  EXPECT_EQ(Request({"--config", File("{")}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Request({"--config", "/nonexistent/file"}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(VmFlagsTest, RefusesMalformedValues) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"--memory", "5MB"},
                                             {"--serial", "x"},
                                             {"--extra", "novalue"},
                                             {"--extra", "=v"},
                                             {"--on-crash", "explode"},
                                             {"--cpus", "-1"},
                                             {"--cpus", "4294967296"},
                                             {"--populate", "--overcommit"},
                                             {"--kernel"}}) {
    EXPECT_THROW(Parse(words), CLI::ParseError) << words[0];
  }
}

TEST_F(VmFlagsTest, TakesValuesThatLookLikeFlags) {
  EXPECT_EQ(Parse({"--cmdline", "--x y"}).cmdline, "--x y");
  EXPECT_EQ(Parse({"--cmdline=-x"}).cmdline, "-x");
  EXPECT_EQ(Parse({"--cmdline", "[a,b]"}).cmdline, "[a,b]");
  EXPECT_EQ(Parse({"--cmdline", ""}).cmdline, "");
}

std::optional<uint32_t> PortOf(const VmFlags& flags, const std::string& json) {
  VMConfig config;
  EXPECT_TRUE(ParseJson(json, &config).ok());
  return TerminalPort(flags, config).value();
}

TEST_F(VmFlagsTest, PutsCom1OnTheTerminalUnlessItHasASocket) {
  EXPECT_EQ(PortOf({}, "{}"), 0U);
  EXPECT_EQ(PortOf({}, R"({"serial_config": {"ports": [{"port": 1, "socket_path": "/s"}]}})"), 0U);
  EXPECT_EQ(PortOf({}, R"({"serial_config": {"ports": [{"port": 0, "socket_path": "/s"}]}})"),
            std::nullopt);
}

TEST_F(VmFlagsTest, PutsThePortOnTheTerminalThatWasAskedFor) {
  const std::string com1 = R"({"serial_config": {"ports": [{"port": 0, "socket_path": "/s"}]}})";
  EXPECT_EQ(PortOf(Parse({"--serial", "0=-"}), com1), 0U);
  EXPECT_EQ(PortOf(Parse({"--serial", "1=-"}), com1), 1U);
  EXPECT_EQ(TerminalPort(Parse({"--serial", "0=-", "--serial", "1=-"}), {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace bothy::bothyctl
