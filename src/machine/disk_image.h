// Opening the images that a machine's configuration names.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "disk/disk.h"
#include "inspect/node.h"
#include "machine/config.h"
#include "support/io_loop.h"

namespace bothy::machine {

// On `loop`'s thread.
Task<absl::StatusOr<std::unique_ptr<disk::Disk>>> OpenDisk(IoLoop& loop, ImageConfig image);

// What a guest knows the disk by: its format's own identity, or else a name made of its path, the
// same for every VM.
[[nodiscard]] std::string SerialOf(const disk::Disk& disk);
[[nodiscard]] std::string SerialOfPath(std::string_view path);

// What inspection shows of a disk and its parents. On the disk's thread.
void Describe(const disk::Disk& disk, inspect::Node& node);

}  // namespace bothy::machine
