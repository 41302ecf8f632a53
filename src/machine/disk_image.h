// Opening the images that a machine's configuration names.
#pragma once

#include <memory>

#include "disk/disk.h"
#include "inspect/node.h"
#include "machine/config.h"
#include "support/io_loop.h"

namespace bothy::machine {

// On `loop`'s thread.
Task<absl::StatusOr<std::unique_ptr<disk::Disk>>> OpenDisk(IoLoop& loop, ImageConfig image);

// What inspection shows of a disk and its parents. On the disk's thread.
void Describe(const disk::Disk& disk, inspect::Node& node);

}  // namespace bothy::machine
