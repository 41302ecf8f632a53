// The type of a disk image that the command line didn't say.
#pragma once

#include <string>

#include "cmd/bothyctl/option_types.h"
#include "support/status.h"
#include "vmservice.pb.h"

namespace bothy::bothyctl {

// The words for DiskType, which several options take.
const Choices<::vmservice::DiskType>& DiskTypes();

// As disk::DetectImageType: .raw, .img and block devices are physical, others what their contents
// say. Where this process can't tell by those (another user's file, an image in use, one that is
// damaged), by its name: .vhd and .avhd, .vhdx and .avhdx, else physical. A file that begins as an
// image of a format that isn't supported is InvalidArgument: as a physical disk a guest would
// damage it. `as_raw` are the words of the command line that make it one all the same.
absl::StatusOr<::vmservice::DiskType> GuessDiskType(const std::string& path,
                                                    const std::string& as_raw);

}  // namespace bothy::bothyctl
