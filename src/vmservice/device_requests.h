// Devices of a request as the machine's plain values: what CreateVM and ModifyResource have in
// common.
//
// Pure. Errors name the field by its path.
#pragma once

#include <string>

#include "machine/config.h"
#include "support/status.h"
#include "vmservice.pb.h"

namespace bothy::vmservice {

// For a removal what the disk is known by is enough.
enum class DiskPurpose { kUse, kRemove };

// `path` is the message's: "scsi_disk", "config.devices_config.scsi_disks[3]".
absl::StatusOr<machine::ScsiDiskConfig> TranslateScsiDisk(const ::vmservice::SCSIDisk& disk,
                                                          const std::string& path,
                                                          DiskPurpose purpose);
absl::StatusOr<machine::PmemDiskConfig> TranslatePmemDisk(const ::vmservice::VPMEMDisk& disk,
                                                          const std::string& path);

// All devices of a VM that is to be created.
//   AlreadyExists    two SCSI disks at one place, two persistent memories of one path, two cards of
//                    one identity or address
//   InvalidArgument  an image that two disks share and one of them writes to
absl::Status TranslateDevices(const ::vmservice::DevicesConfig& devices,
                              machine::MachineConfig& out);

}  // namespace bothy::vmservice
