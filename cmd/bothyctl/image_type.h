// The type of a disk image that the command line didn't say.
#pragma once

#include <string>

#include "cmd/bothyctl/option_types.h"
#include "vmservice.pb.h"

namespace bothy::bothyctl {

// The words for DiskType, which several options take.
const Choices<::vmservice::DiskType>& DiskTypes();

// As disk::DetectImageType: .raw, .img and block devices are physical, others what their contents
// say. Where this process can't tell by those (another user's file, an image in use, one that is
// damaged), by its name: .vhd and .avhd, .vhdx and .avhdx, else physical.
::vmservice::DiskType GuessDiskType(const std::string& path);

}  // namespace bothy::bothyctl
