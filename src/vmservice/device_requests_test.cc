#include "vmservice/device_requests.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>

#include "vmservice/testing/status_matchers.h"

namespace bothy::vmservice {
namespace {

using absl::StatusCode;
using machine::ImageType;
using machine::MachineConfig;

absl::StatusOr<MachineConfig> Translate(const std::string& text) {
  ::vmservice::DevicesConfig devices;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &devices)) << text;
  MachineConfig config;
  RETURN_IF_ERROR(TranslateDevices(devices, config));
  return config;
}

absl::Status StatusOf(const std::string& text) { return Translate(text).status(); }

TEST(DeviceRequestsTest, EveryFieldArrivesInOrder) {
  const auto config = Translate(R"(
      scsi_disks { controller: 3 lun: 63 host_path: '/a.vhd' }
      scsi_disks { lun: 63 host_path: 'b.vhdx' type: SCSI_DISK_TYPE_VHDX read_only: true }
      scsi_disks { host_path: '/dev/sdb' type: SCSI_DISK_TYPE_PHYSICAL }
      vpmem_disks { host_path: '/c.img' type: SCSI_DISK_TYPE_PHYSICAL read_only: true }
      vpmem_disks { host_path: '/d.vhd' })");
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->scsi_disks.size(), 3U);
  EXPECT_EQ(config->scsi_disks[0].controller, 3U);
  EXPECT_EQ(config->scsi_disks[0].lun, 63U);
  EXPECT_EQ(config->scsi_disks[0].image.path, "/a.vhd");
  EXPECT_EQ(config->scsi_disks[0].image.type, ImageType::kVhd1);
  EXPECT_FALSE(config->scsi_disks[0].image.read_only);
  EXPECT_EQ(config->scsi_disks[1].controller, 0U);
  EXPECT_EQ(config->scsi_disks[1].image.path, "b.vhdx");
  EXPECT_EQ(config->scsi_disks[1].image.type, ImageType::kVhdx);
  EXPECT_TRUE(config->scsi_disks[1].image.read_only);
  EXPECT_EQ(config->scsi_disks[2].lun, 0U);
  EXPECT_EQ(config->scsi_disks[2].image.type, ImageType::kPhysical);
  ASSERT_EQ(config->pmem_disks.size(), 2U);
  EXPECT_EQ(config->pmem_disks[0].image.path, "/c.img");
  EXPECT_EQ(config->pmem_disks[0].image.type, ImageType::kPhysical);
  EXPECT_TRUE(config->pmem_disks[0].image.read_only);
  EXPECT_EQ(config->pmem_disks[1].image.path, "/d.vhd");
  EXPECT_EQ(config->pmem_disks[1].image.type, ImageType::kVhd1);
}

TEST(DeviceRequestsTest, AllPlacesCanBeTaken) {
  std::string text;
  for (int controller = 0; controller < 4; ++controller) {
    for (int lun = 0; lun < 64; ++lun) {
      text += "scsi_disks { controller: " + std::to_string(controller) +
              " lun: " + std::to_string(lun) + " host_path: '/" + std::to_string(controller) + "." +
              std::to_string(lun) + "' }";
    }
  }
  const auto config = Translate(text);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->scsi_disks.size(), 256U);
}

TEST(DeviceRequestsTest, PlacesOutsideTheControllersAreRefused) {
  EXPECT_THAT(StatusOf("scsi_disks { host_path: '/a' } scsi_disks { lun: 64 host_path: '/b' }"),
              Is(StatusCode::kInvalidArgument,
                 "config.devices_config.scsi_disks[1].lun: 64 is out of range 0..63"));
  EXPECT_THAT(StatusOf("scsi_disks { controller: 4 host_path: '/b' }"),
              Is(StatusCode::kInvalidArgument,
                 "config.devices_config.scsi_disks[0].controller: 4 is out of range 0..3"));
}

TEST(DeviceRequestsTest, PathsThatAreNoneAreRefused) {
  for (const std::string disks : {"scsi_disks", "vpmem_disks"}) {
    const std::string path = "config.devices_config." + disks + "[0].host_path";
    EXPECT_THAT(StatusOf(disks + " {}"), Is(StatusCode::kInvalidArgument, path + ": is empty"));
    EXPECT_THAT(StatusOf(disks + " { host_path: '/a\\000b' }"),
                Is(StatusCode::kInvalidArgument, path + ": contains a NUL byte"));
  }
}

TEST(DeviceRequestsTest, TypesThatThereAreNotAreRefused) {
  for (const std::string disks : {"scsi_disks", "vpmem_disks"}) {
    EXPECT_THAT(StatusOf(disks + " { host_path: '/a' type: 3 }"),
                Is(StatusCode::kInvalidArgument,
                   "config.devices_config." + disks + "[0].type: 3 is no DiskType"));
  }
}

TEST(DeviceRequestsTest, APlaceIsTakenOnce) {
  EXPECT_THAT(StatusOf("scsi_disks { host_path: '/a' } scsi_disks { lun: 1 host_path: '/b' }"
                       "scsi_disks { controller: 1 lun: 1 host_path: '/c' }"
                       "scsi_disks { lun: 1 host_path: '/d' }"),
              Is(StatusCode::kAlreadyExists,
                 "config.devices_config.scsi_disks[3].lun: controller 0 LUN 1 is scsi_disks[1] "
                 "already"));
}

TEST(DeviceRequestsTest, APathOfPersistentMemoryIsTakenOnce) {
  EXPECT_THAT(StatusOf("vpmem_disks { host_path: '/a' read_only: true }"
                       "vpmem_disks { host_path: '/./a' read_only: true }"),
              Is(StatusCode::kAlreadyExists,
                 "config.devices_config.vpmem_disks[1].host_path: is vpmem_disks[0] already"));
}

TEST(DeviceRequestsTest, AnImageThatIsWrittenToIsNotShared) {
  const std::string problem = "; only disks that are all read_only can share one";
  EXPECT_THAT(StatusOf("scsi_disks { host_path: '/a' } scsi_disks { lun: 1 host_path: '//a' }"),
              Is(StatusCode::kInvalidArgument,
                 "config.devices_config.scsi_disks[1].host_path: is the image of scsi_disks[0], "
                 "too" +
                     problem));
  EXPECT_THAT(
      StatusOf("scsi_disks { host_path: '/a' } "
               "scsi_disks { lun: 1 host_path: '/a' read_only: true }"),
      IsAbout(StatusCode::kInvalidArgument, "config.devices_config.scsi_disks[1].host_path"));
  EXPECT_THAT(
      StatusOf("scsi_disks { host_path: '/a' read_only: true } "
               "scsi_disks { lun: 1 host_path: '/a' }"),
      IsAbout(StatusCode::kInvalidArgument, "config.devices_config.scsi_disks[1].host_path"));
  EXPECT_THAT(StatusOf("scsi_disks { host_path: '/a' } vpmem_disks { host_path: '/a' }"),
              Is(StatusCode::kInvalidArgument,
                 "config.devices_config.vpmem_disks[0].host_path: is the image of scsi_disks[0], "
                 "too" +
                     problem));
  EXPECT_TRUE(StatusOf("scsi_disks { host_path: '/a' read_only: true } "
                       "scsi_disks { lun: 1 host_path: '/a' read_only: true }"
                       "vpmem_disks { host_path: '/a' read_only: true }")
                  .ok());
}

TEST(DeviceRequestsTest, PathsAreComparedWithoutWhatSaysNothing) {
  const auto config = Translate(
      "vpmem_disks { host_path: '/x/.//a' } vpmem_disks { host_path: '.' }"
      "vpmem_disks { host_path: 'x/../a' }");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->pmem_disks[0].image.path, "/x/a");
  EXPECT_EQ(config->pmem_disks[1].image.path, ".");
  EXPECT_EQ(config->pmem_disks[2].image.path, "x/../a");
}

}  // namespace
}  // namespace bothy::vmservice
