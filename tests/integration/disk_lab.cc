#include "tests/integration/disk_lab.h"

#include <google/protobuf/util/json_util.h>

#include <cstdlib>
#include <utility>

namespace bothy::integration {
namespace {

// A disk's directory in the guest's /sys; the adapter's number is whatever it is.
std::string SysfsOf(uint32_t lun) {
  return "/sys/class/scsi_disk/*:0:0:" + std::to_string(lun) + "/device/block/*";
}

}  // namespace

wire::CreateVMRequest DiskLabTest::DiskGuest() const {
  wire::CreateVMRequest request = Guest(512, 1);
  request.mutable_config()->mutable_direct_boot()->set_initrd_path(BOTHY_GUEST_DIR
                                                                   "/disk-initrd.img");
  return request;
}

wire::SCSIDisk DiskLabTest::ScsiDisk(const TestImage& image, uint32_t lun, uint32_t controller) {
  wire::SCSIDisk disk;
  disk.set_controller(controller);
  disk.set_lun(lun);
  disk.set_host_path(image.path);
  disk.set_type(image.wire_type());
  return disk;
}

wire::VPMEMDisk DiskLabTest::PmemDisk(const TestImage& image) {
  wire::VPMEMDisk disk;
  disk.set_host_path(image.path);
  disk.set_type(image.wire_type());
  return disk;
}

void DiskLabTest::Add(wire::CreateVMRequest& request, const wire::SCSIDisk& disk) {
  *request.mutable_config()->mutable_devices_config()->add_scsi_disks() = disk;
}

void DiskLabTest::Add(wire::CreateVMRequest& request, const wire::VPMEMDisk& disk) {
  *request.mutable_config()->mutable_devices_config()->add_vpmem_disks() = disk;
}

absl::Status DiskLabTest::Modify(wire::ModifyType type, const wire::SCSIDisk& disk) {
  wire::ModifyResourceRequest request;
  request.set_type(type);
  *request.mutable_scsi_disk() = disk;
  return vm_->stub().ModifyResource(request).status();
}

absl::Status DiskLabTest::Modify(wire::ModifyType type, const wire::VPMEMDisk& disk) {
  wire::ModifyResourceRequest request;
  request.set_type(type);
  *request.mutable_vpmem_disk() = disk;
  return vm_->stub().ModifyResource(request).status();
}

std::string DiskLabTest::Inspect(const std::string& query) {
  wire::InspectVMRequest request;
  request.set_query(query);
  request.set_recursion_limit(24);
  const auto answer = vm_->stub().InspectVM(request);
  if (!answer.ok()) {
    ADD_FAILURE() << query << ": " << answer.status();
    return "";
  }
  std::string json;
  EXPECT_TRUE(google::protobuf::util::MessageToJsonString(answer->result(), &json).ok());
  return json;
}

std::string DiskLabTest::InGuest(const std::string& script, absl::Duration timeout) {
  const auto result = agent_->Run("set -e; " + script, timeout);
  if (!result.ok()) {
    ADD_FAILURE() << script << ": " << result.status();
    return "";
  }
  EXPECT_EQ(result->status, 0) << script << "\n" << result->output << result->error_output;
  std::string output = result->output;
  if (output.ends_with('\n')) output.pop_back();
  return output;
}

void DiskLabTest::Await(const std::string& condition) {
  (void)InGuest("await '" + condition + "'");
}

std::string DiskLabTest::AwaitDisk(uint32_t lun) {
  return InGuest("await 'set -- " + SysfsOf(lun) +
                 "; true 2>/dev/null </dev/${1##*/}'; echo /dev/$(basename " + SysfsOf(lun) + ")");
}

void DiskLabTest::AwaitNoDisk(uint32_t lun) { Await("test ! -e " + SysfsOf(lun)); }

void DiskLabTest::EndServer() {
  EXPECT_THAT(vm_->Quit(), IsOk());
  EXPECT_EQ(server_->AwaitEnd(), 0);
  vm_.reset();
}

FaultyMedium::FaultyMedium(const TestFolder& folder) {
  auto loop = disk::LoopDevice::Create({.file = MakeFlat(folder, "flat", kBytes)});
  CHECK_OK(loop.status());
  loop_ = *std::move(loop);
  auto faulty = disk::FaultyDevice::Create({.name = "bothy-faulty",
                                            .device = loop_->path(),
                                            .bytes = kBytes,
                                            .bad_offset = kBadOffset,
                                            .bad_bytes = uint64_t{1} << 20});
  CHECK_OK(faulty.status());
  faulty_ = *std::move(faulty);
}

std::string FioVerify(const std::string& target) {
  return "fio --name=verify --ioengine=io_uring --iodepth=16 --direct=1 --rw=randwrite "
         "--bsrange=4k-64k --verify=crc32c --verify_fatal=1 --minimal " +
         target + " >/dev/null";
}

std::string ReadLine(const std::string& device) {
  return "dd if=" + device + " bs=4096 count=1 iflag=direct 2>/dev/null | tr -d '\\0'";
}

std::string WriteLine(const std::string& device, const std::string& line) {
  return "echo " + line + " | dd of=" + device + " bs=4096 conv=sync,fsync 2>/dev/null";
}

}  // namespace bothy::integration
