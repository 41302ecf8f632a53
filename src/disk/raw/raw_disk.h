// RawDisk: a flat file or a block device as a disk, byte for byte.
#pragma once

#include <memory>

#include "disk/disk.h"
#include "disk/storage.h"

namespace bothy::disk {

// InvalidArgument when the size isn't a whole number of sectors.
absl::StatusOr<std::unique_ptr<Disk>> OpenRawDisk(std::unique_ptr<Storage> storage);

}  // namespace bothy::disk
