// Committing a differencing image: its contents into the disk that it differs from.
#pragma once

#include <string>

#include "disk/tools/copy_disk.h"
#include "disk/tools/image_format.h"
#include "support/io_loop.h"

namespace bothy::disk::tools {

// Afterwards the parent reads as the image did, whose file stays and still reads the same.
//
// Interrupted or cut off at any point the image reads as before: what is in the parent by then is
// only what the image has itself. It can be committed again. Other images that differ from the same
// parent are good no longer; a VHDX notices.
//
// A parent that is smaller grows first. FailedPrecondition when the image has no parent, or the
// parent is in use. Returns the parent's path.
Task<absl::StatusOr<std::string>> CommitImage(IoLoop& loop, const Source& source,
                                              CopyOptions options);

}  // namespace bothy::disk::tools
