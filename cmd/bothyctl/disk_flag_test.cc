#include "cmd/bothyctl/disk_flag.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cmd/bothyctl/image_type.h"
#include "support/testing/test_folder.h"

namespace bothy::bothyctl {
namespace {

using ::vmservice::VMConfig;

TEST(DiskFlagTest, ReadsAPathAlone) {
  const DiskFlag flag = ParseDiskFlag("a.vhdx").value();
  EXPECT_EQ(flag.path, "a.vhdx");
  EXPECT_FALSE(flag.read_only);
  EXPECT_FALSE(flag.type);
  EXPECT_FALSE(flag.controller);
  EXPECT_FALSE(flag.lun);
}

TEST(DiskFlagTest, ReadsOptionsInAnyOrder) {
  for (const char* text :
       {"/d,ro,type=raw,controller=1,lun=63", "/d,lun=63,controller=1,type=raw,ro"}) {
    const DiskFlag flag = ParseDiskFlag(text).value();
    EXPECT_EQ(flag.path, "/d");
    EXPECT_TRUE(flag.read_only);
    EXPECT_EQ(flag.type, ::vmservice::SCSI_DISK_TYPE_PHYSICAL);
    EXPECT_EQ(flag.controller, 1U);
    EXPECT_EQ(flag.lun, 63U);
  }
  EXPECT_EQ(ParseDiskFlag("a,type=vhd").value().type, ::vmservice::SCSI_DISK_TYPE_VHD1);
  EXPECT_EQ(ParseDiskFlag("a,type=vhdx").value().type, ::vmservice::SCSI_DISK_TYPE_VHDX);
}

TEST(DiskFlagTest, ACommaMayBelongToThePath) {
  EXPECT_EQ(ParseDiskFlag("a,b").value().path, "a,b");
  EXPECT_EQ(ParseDiskFlag("a,ro,b=c,ro").value().path, "a,ro,b=c");
}

TEST(DiskFlagTest, LeavesRangesToTheServer) {
  EXPECT_EQ(ParseDiskFlag("a,lun=64").value().lun, 64U);
}

TEST(DiskFlagTest, RefusesMalformedOnes) {
  for (const char* text :
       {"", ",ro", "a,lun=", "a,lun=x", "a,lun=-1", "a,lun=1x",
        "a,controller=", "a,type=", "a,type=qcow2", "a,ro,ro", "a,lun=1,lun=1",
        "a,type=vhd,type=vhd", "a,controller=0,controller=1", "a,lun=4294967296"}) {
    EXPECT_EQ(ParseDiskFlag(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(DiskFlagTest, PersistentMemoryHasNoPlace) {
  EXPECT_TRUE(ParsePmemFlag("a,ro,type=vhd").ok());
  EXPECT_FALSE(ParsePmemFlag("a,lun=1").ok());
  EXPECT_FALSE(ParsePmemFlag("a,controller=1").ok());
}

std::vector<DiskFlag> Flags(const std::vector<std::string>& texts) {
  std::vector<DiskFlag> flags;
  for (const std::string& text : texts) flags.push_back(ParseDiskFlag(text).value());
  return flags;
}

// "controller:lun path" of each disk.
std::vector<std::string> Places(const VMConfig& config) {
  std::vector<std::string> places;
  for (const auto& disk : config.devices_config().scsi_disks()) {
    places.push_back(std::to_string(disk.controller()) + ":" + std::to_string(disk.lun()) + " " +
                     disk.host_path());
  }
  return places;
}

TEST(AddScsiDisksTest, GivesFreePlacesAroundThoseThatAreTaken) {
  VMConfig config;
  auto* const there = config.mutable_devices_config()->add_scsi_disks();
  there->set_lun(1);
  there->set_host_path("/there");
  ASSERT_TRUE(AddScsiDisks(Flags({"/a", "/b", "/c,lun=2", "/d,controller=1",
                                  "/e,lun=5,controller=1", "/f,controller=1"}),
                           &config)
                  .ok());
  EXPECT_EQ(Places(config), (std::vector<std::string>{"0:1 /there", "0:0 /a", "0:3 /b", "0:2 /c",
                                                      "1:0 /d", "1:5 /e", "1:1 /f"}));
}

TEST(AddScsiDisksTest, AWholePlaceReplacesWhatTheFileHasThere) {
  VMConfig config;
  config.mutable_devices_config()->add_scsi_disks()->set_host_path("/old");
  ASSERT_TRUE(AddScsiDisks(Flags({"/new,lun=0"}), &config).ok());
  EXPECT_EQ(Places(config), (std::vector<std::string>{"0:0 /new"}));
}

TEST(AddScsiDisksTest, GoesOnWithTheNextControllerUntilAllAreFull) {
  VMConfig config;
  std::vector<std::string> texts(256, "/a,ro");
  ASSERT_TRUE(AddScsiDisks(Flags(texts), &config).ok());
  EXPECT_EQ(Places(config).back(), "3:63 /a");
  EXPECT_EQ(AddScsiDisks(Flags({"/b"}), &config),
            absl::ResourceExhaustedError("--disk /b: no controller has a free LUN"));
  EXPECT_EQ(AddScsiDisks(Flags({"/b,controller=2"}), &config),
            absl::ResourceExhaustedError("--disk /b: controller 2 has no free LUN"));
}

TEST(AddScsiDisksTest, MakesPathsAbsoluteAndSaysTheRest) {
  VMConfig config;
  ASSERT_TRUE(AddScsiDisks(Flags({"a.vhdx,ro"}), &config).ok());
  const auto& disk = config.devices_config().scsi_disks(0);
  EXPECT_EQ(disk.host_path(), (std::filesystem::current_path() / "a.vhdx").string());
  EXPECT_TRUE(disk.read_only());
  EXPECT_EQ(disk.type(), ::vmservice::SCSI_DISK_TYPE_VHDX);  // there is no such file
}

TEST(AddPmemDisksTest, APathReplacesThatOfTheFile) {
  VMConfig config;
  for (const char* path : {"/a", "/b"}) {
    config.mutable_devices_config()->add_vpmem_disks()->set_host_path(path);
  }
  ASSERT_TRUE(AddPmemDisks(Flags({"/a,ro", "/c"}), &config).ok());
  const auto& disks = config.devices_config().vpmem_disks();
  ASSERT_EQ(disks.size(), 3);
  EXPECT_EQ(disks[0].host_path(), "/b");
  EXPECT_EQ(disks[1].host_path(), "/a");
  EXPECT_TRUE(disks[1].read_only());
  EXPECT_EQ(disks[1].type(), ::vmservice::SCSI_DISK_TYPE_PHYSICAL);
  EXPECT_EQ(disks[2].host_path(), "/c");
}

::vmservice::DiskType Guess(const std::string& path) {
  return GuessDiskType(path, "type=raw").value();
}

TEST(GuessDiskTypeTest, GoesByContentsWhereTheNameDoesNotSay) {
  const TestFolder folder;
  // The signature that a VHDX begins with, and the footer that a VHD ends with.
  std::string vhdx(1 << 20, '\0');
  vhdx.replace(0, 8, "vhdxfile");
  EXPECT_EQ(Guess(folder.WriteText("a", vhdx)), ::vmservice::SCSI_DISK_TYPE_VHDX);
  EXPECT_EQ(Guess(folder.WriteText("a.vhd", vhdx)), ::vmservice::SCSI_DISK_TYPE_VHDX);
  EXPECT_EQ(Guess(folder.WriteText("b", std::string(4096, 'x'))),
            ::vmservice::SCSI_DISK_TYPE_PHYSICAL);
  // The guest of a raw disk doesn't choose the format of its image.
  EXPECT_EQ(Guess(folder.WriteText("a.img", vhdx)), ::vmservice::SCSI_DISK_TYPE_PHYSICAL);
  // Damaged: the server says so.
  EXPECT_EQ(Guess(folder.WriteText("b.vhdx", std::string(4096, 'x'))),
            ::vmservice::SCSI_DISK_TYPE_VHDX);
}

TEST(GuessDiskTypeTest, GoesByNameWhereItCannotLook) {
  EXPECT_EQ(Guess("/nowhere/a.VHD"), ::vmservice::SCSI_DISK_TYPE_VHD1);
  EXPECT_EQ(Guess("/nowhere/a.avhd"), ::vmservice::SCSI_DISK_TYPE_VHD1);
  EXPECT_EQ(Guess("/nowhere/a.vhdx"), ::vmservice::SCSI_DISK_TYPE_VHDX);
  EXPECT_EQ(Guess("/nowhere/a.AVHDX"), ::vmservice::SCSI_DISK_TYPE_VHDX);
  EXPECT_EQ(Guess("/nowhere/vhdx"), ::vmservice::SCSI_DISK_TYPE_PHYSICAL);
}

// A guest would damage it.
TEST(GuessDiskTypeTest, RefusesAnImageOfAFormatThatIsNotSupported) {
  const TestFolder folder;
  std::string qcow2(1 << 16, '\0');
  qcow2.replace(0, 4, "QFI\xfb");
  for (const char* name : {"a", "a.qcow2", "a.img"}) {
    const std::string path = folder.WriteText(name, qcow2);
    const std::string found = path +
                              ": begins as a qcow2 image, which isn't supported; "
                              "`qemu-img convert` makes it one that is; ";
    EXPECT_EQ(GuessDiskType(path, "--type raw").status(),
              absl::InvalidArgumentError(found + "--type raw takes it as it is"));
    VMConfig config;
    EXPECT_EQ(AddScsiDisks(Flags({path}), &config),
              absl::InvalidArgumentError(
                  absl::StrCat("--disk ", path, ": ", found, "type=raw takes it as it is")));
    EXPECT_EQ(AddPmemDisks(Flags({path}), &config),
              absl::InvalidArgumentError(
                  absl::StrCat("--pmem ", path, ": ", found, "type=raw takes it as it is")));
    EXPECT_TRUE(AddScsiDisks(Flags({path + ",type=raw"}), &config).ok());
  }
  // What isn't a file at all is the server's to refuse.
  EXPECT_EQ(Guess(folder.path()), ::vmservice::SCSI_DISK_TYPE_PHYSICAL);
}

}  // namespace
}  // namespace bothy::bothyctl
