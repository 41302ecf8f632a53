#include "vmservice/modify_request.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/unknown_field_set.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "vmservice/testing/recording_machine.h"
#include "vmservice/testing/status_matchers.h"

namespace bothy::vmservice {
namespace {

using absl::StatusCode;
using machine::Change;
using machine::ImageType;

::vmservice::ModifyResourceRequest Request(const std::string& text) {
  ::vmservice::ModifyResourceRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
  return request;
}

absl::Status StatusOf(const std::string& text) {
  return TranslateModifyRequest(Request(text)).status();
}

// What the machine is told.
RecordingMachine::Change Applied(const std::string& text) {
  const auto change = TranslateModifyRequest(Request(text));
  EXPECT_TRUE(change.ok()) << change.status();
  if (!change.ok()) return {};
  RecordingMachine machine;
  change->apply(machine, change->change, {}, [](const absl::Status&) {});
  return std::move(*machine.changes.at(0));
}

TEST(ModifyRequestTest, AScsiDiskArrives) {
  const auto applied = Applied(
      "type: UPDATE scsi_disk { controller: 3 lun: 63 host_path: '/x//a.vhdx' "
      "type: SCSI_DISK_TYPE_VHDX read_only: true }");
  EXPECT_EQ(applied.change, Change::kUpdate);
  ASSERT_TRUE(applied.scsi.has_value());
  EXPECT_EQ(applied.scsi->controller, 3U);
  EXPECT_EQ(applied.scsi->lun, 63U);
  EXPECT_EQ(applied.scsi->image.path, "/x/a.vhdx");
  EXPECT_EQ(applied.scsi->image.type, ImageType::kVhdx);
  EXPECT_TRUE(applied.scsi->image.read_only);
}

TEST(ModifyRequestTest, APersistentMemoryArrives) {
  const auto applied = Applied(
      "type: REMOVE vpmem_disk { host_path: 'a.img' type: SCSI_DISK_TYPE_PHYSICAL "
      "read_only: true }");
  EXPECT_EQ(applied.change, Change::kRemove);
  ASSERT_TRUE(applied.pmem.has_value());
  EXPECT_EQ(applied.pmem->image.path, "a.img");
  EXPECT_EQ(applied.pmem->image.type, ImageType::kPhysical);
  EXPECT_TRUE(applied.pmem->image.read_only);
}

TEST(ModifyRequestTest, ARemovalOfAScsiDiskGoesByItsPlace) {
  const auto applied = Applied("type: REMOVE scsi_disk { controller: 1 lun: 2 }");
  EXPECT_EQ(applied.change, Change::kRemove);
  EXPECT_EQ(applied.scsi->controller, 1U);
  EXPECT_EQ(applied.scsi->lun, 2U);
  EXPECT_EQ(applied.scsi->image.path, "");
}

TEST(ModifyRequestTest, ResourcesAreToldApart) {
  const auto name = [](const std::string& text) {
    return TranslateModifyRequest(Request(text))->resource;
  };
  EXPECT_EQ(name("type: REMOVE scsi_disk { controller: 1 lun: 23 }"), "scsi_disk 1:23");
  EXPECT_EQ(name("type: ADD scsi_disk { controller: 1 lun: 23 host_path: '/a' }"),
            "scsi_disk 1:23");
  EXPECT_EQ(name("type: ADD vpmem_disk { host_path: '/./a' }"), "vpmem_disk /a");
}

TEST(ModifyRequestTest, ErrorsNameTheField) {
  for (const std::string type : {"ADD", "REMOVE", "UPDATE"}) {
    EXPECT_THAT(StatusOf("type: " + type + " scsi_disk { lun: 64 host_path: '/a' }"),
                Is(StatusCode::kInvalidArgument, "scsi_disk.lun: 64 is out of range 0..63"));
    EXPECT_THAT(StatusOf("type: " + type + " scsi_disk { controller: 4 host_path: '/a' }"),
                IsAbout(StatusCode::kInvalidArgument, "scsi_disk.controller"));
    EXPECT_THAT(StatusOf("type: " + type + " scsi_disk { host_path: '/a' type: 9 }"),
                Is(StatusCode::kInvalidArgument, "scsi_disk.type: 9 is no DiskType"));
    EXPECT_THAT(StatusOf("type: " + type + " scsi_disk { host_path: 'a\\000' }"),
                IsAbout(StatusCode::kInvalidArgument, "scsi_disk.host_path"));
  }
  for (const std::string type : {"ADD", "UPDATE"}) {
    EXPECT_THAT(StatusOf("type: " + type + " scsi_disk {}"),
                Is(StatusCode::kInvalidArgument, "scsi_disk.host_path: is empty"));
  }
  for (const std::string type : {"ADD", "REMOVE"}) {
    EXPECT_THAT(StatusOf("type: " + type + " vpmem_disk {}"),
                Is(StatusCode::kInvalidArgument, "vpmem_disk.host_path: is empty"));
  }
  EXPECT_THAT(StatusOf("type: ADD"), IsAbout(StatusCode::kInvalidArgument, "resource"));
  EXPECT_THAT(StatusOf("type: 3 scsi_disk { host_path: '/a' }"),
              Is(StatusCode::kInvalidArgument, "type: 3 is no ModifyType"));
}

TEST(ModifyRequestTest, UnknownFieldsAreRefused) {
  auto request = Request("scsi_disk { host_path: '/a' }");
  auto& disk = *request.mutable_scsi_disk();
  disk.GetReflection()->MutableUnknownFields(&disk)->AddVarint(9, 1);
  EXPECT_THAT(TranslateModifyRequest(request).status(),
              IsAbout(StatusCode::kInvalidArgument, "scsi_disk"));
}

// contract.md, "ModifyResource": the whole table.
TEST(ModifyRequestTest, TheTable) {
  constexpr auto kYes = StatusCode::kOk;
  constexpr auto kNo = StatusCode::kInvalidArgument;
  constexpr auto kLater = StatusCode::kUnimplemented;
  const std::map<std::string, std::vector<StatusCode>> table = {
      {"processor {}", {kLater, kLater, kNo}},
      {"processor_config {}", {kNo, kNo, kLater}},
      {"memory { memory_mb: 1 }", {kLater, kLater, kLater}},
      {"scsi_disk { host_path: '/a' }", {kYes, kYes, kYes}},
      {"vpmem_disk { host_path: '/a' }", {kYes, kYes, kNo}},
      {"nic_config { nic_id: '3f2504e0-4f89-11d3-9a0c-0305e82c3301' tap { name: 'tap0' } }",
       {kYes, kYes, kYes}},
      {"windows_device { instance_id: 'x' }", {kLater, kLater, kNo}},
  };
  for (const auto& [resource, expected] : table) {
    const std::string field = resource.substr(0, resource.find(' '));
    for (size_t i = 0; i < 3; ++i) {
      const absl::Status status = StatusOf("type: " +
                                           std::string(i == 0   ? "ADD"
                                                       : i == 1 ? "REMOVE"
                                                                : "UPDATE") +
                                           " " + resource);
      EXPECT_EQ(status.code(), expected[i]) << resource << status;
      if (expected[i] == kLater) {
        EXPECT_THAT(status, IsAbout(kLater, field));
      }
    }
  }
  EXPECT_THAT(StatusOf("type: UPDATE vpmem_disk { host_path: '/a' }"),
              Is(kNo, "type: UPDATE isn't for vpmem_disk, which allows ADD and REMOVE"));
  EXPECT_THAT(StatusOf("processor_config {}"),
              Is(kNo, "type: ADD isn't for processor_config, which allows UPDATE"));
}

}  // namespace
}  // namespace bothy::vmservice
