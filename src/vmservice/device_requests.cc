#include "vmservice/device_requests.h"

#include <cstdint>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "vmservice/field_checks.h"
#include "vmservice/nic_requests.h"

namespace bothy::vmservice {
namespace {

using machine::ImageConfig;
using machine::ImageType;

absl::StatusOr<ImageType> TranslateType(::vmservice::DiskType type, const std::string& path) {
  switch (type) {
    case ::vmservice::SCSI_DISK_TYPE_VHD1:
      return ImageType::kVhd1;
    case ::vmservice::SCSI_DISK_TYPE_VHDX:
      return ImageType::kVhdx;
    case ::vmservice::SCSI_DISK_TYPE_PHYSICAL:
      return ImageType::kPhysical;
    default:
      return Invalid(path + ".type", absl::StrCat(static_cast<int>(type), " is no DiskType"));
  }
}

// SCSIDisk and VPMEMDisk name their image in the same way.
template <typename Disk>
absl::StatusOr<ImageConfig> TranslateImage(const Disk& disk, const std::string& path) {
  ASSIGN_OR_RETURN(const ImageType type, TranslateType(disk.type(), path));
  return ImageConfig{.path = disk.host_path().empty() ? "" : PlainPath(disk.host_path()),
                     .type = type,
                     .read_only = disk.read_only()};
}

// The images of a request, and whose they are.
class Images {
 public:
  absl::Status Add(const ImageConfig& image, const std::string& owner, const std::string& path) {
    const auto [first, added] = by_path_.try_emplace(image.path, owner, image.read_only);
    if (added || (image.read_only && first->second.second)) return absl::OkStatus();
    return Invalid(path + ".host_path",
                   absl::StrCat("is the image of ", first->second.first,
                                ", too; only disks that are all read_only can share one"));
  }

 private:
  std::map<std::string, std::pair<std::string, bool>> by_path_;  // owner, read_only
};

absl::Status TranslateScsiDisks(const ::vmservice::DevicesConfig& devices, Images& images,
                                machine::MachineConfig& out) {
  std::map<std::pair<uint32_t, uint32_t>, int> by_place;
  for (int i = 0; i < devices.scsi_disks_size(); ++i) {
    const std::string name = absl::StrCat("scsi_disks[", i, "]");
    const std::string path = "config.devices_config." + name;
    ASSIGN_OR_RETURN(machine::ScsiDiskConfig disk,
                     TranslateScsiDisk(devices.scsi_disks(i), path, DiskPurpose::kUse));
    const auto [first, added] = by_place.try_emplace({disk.controller, disk.lun}, i);
    if (!added) {
      return absl::AlreadyExistsError(absl::StrCat(path, ".lun: controller ", disk.controller,
                                                   " LUN ", disk.lun, " is scsi_disks[",
                                                   first->second, "] already"));
    }
    RETURN_IF_ERROR(images.Add(disk.image, name, path));
    out.scsi_disks.push_back(std::move(disk));
  }
  return absl::OkStatus();
}

absl::Status TranslatePmemDisks(const ::vmservice::DevicesConfig& devices, Images& images,
                                machine::MachineConfig& out) {
  std::map<std::string, int> by_path;
  for (int i = 0; i < devices.vpmem_disks_size(); ++i) {
    const std::string name = absl::StrCat("vpmem_disks[", i, "]");
    const std::string path = "config.devices_config." + name;
    ASSIGN_OR_RETURN(machine::PmemDiskConfig disk, TranslatePmemDisk(devices.vpmem_disks(i), path));
    // Its path is what it is removed by.
    if (const auto [first, added] = by_path.try_emplace(disk.image.path, i); !added) {
      return absl::AlreadyExistsError(
          absl::StrCat(path, ".host_path: is vpmem_disks[", first->second, "] already"));
    }
    RETURN_IF_ERROR(images.Add(disk.image, name, path));
    out.pmem_disks.push_back(std::move(disk));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<machine::ScsiDiskConfig> TranslateScsiDisk(const ::vmservice::SCSIDisk& disk,
                                                          const std::string& path,
                                                          DiskPurpose purpose) {
  RETURN_IF_ERROR(
      CheckRange(path + ".controller", disk.controller(), 0, machine::kScsiControllers - 1));
  RETURN_IF_ERROR(CheckRange(path + ".lun", disk.lun(), 0, machine::kScsiLuns - 1));
  if (purpose == DiskPurpose::kUse || !disk.host_path().empty()) {
    RETURN_IF_ERROR(CheckPath(path + ".host_path", disk.host_path()));
  }
  ASSIGN_OR_RETURN(ImageConfig image, TranslateImage(disk, path));
  return machine::ScsiDiskConfig{
      .controller = disk.controller(), .lun = disk.lun(), .image = std::move(image)};
}

absl::StatusOr<machine::PmemDiskConfig> TranslatePmemDisk(const ::vmservice::VPMEMDisk& disk,
                                                          const std::string& path) {
  RETURN_IF_ERROR(CheckPath(path + ".host_path", disk.host_path()));
  ASSIGN_OR_RETURN(ImageConfig image, TranslateImage(disk, path));
  return machine::PmemDiskConfig{.image = std::move(image)};
}

absl::Status TranslateDevices(const ::vmservice::DevicesConfig& devices,
                              machine::MachineConfig& out) {
  Images images;
  RETURN_IF_ERROR(TranslateScsiDisks(devices, images, out));
  RETURN_IF_ERROR(TranslatePmemDisks(devices, images, out));
  RETURN_IF_ERROR(TranslateNics(devices, out));
  const std::string path = "config.devices_config";
  if (devices.windows_device_size() > 0) {
    return NotInThisBuild(path + ".windows_device[0]", "host devices");
  }
  return absl::OkStatus();
}

}  // namespace bothy::vmservice
