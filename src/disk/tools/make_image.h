// Making images: new ones, and copies of others.
#pragma once

#include <string>

#include "disk/tools/copy_disk.h"
#include "disk/tools/image_format.h"
#include "disk/tools/new_image_file.h"
#include "support/io_loop.h"

namespace bothy::disk::tools {

// A new image at `path`, which is there when this is done, whole and durable, and isn't when it
// fails. InvalidArgument when it would replace its parent, or what that one differs from.
Task<absl::Status> CreateImage(IoLoop& loop, const std::string& path, ImageSpec spec,
                               NewImageFile::Existing existing);

// A new image at `path` with the contents of `source`, all that it inherits from its parents
// included. A size of zero is the source's; a larger one is filled with zeros. With a parent only
// what differs from it is written. InvalidArgument when it would replace the source or a parent.
// A file that replaces none has a mode that lets nobody read it who couldn't read the source.
Task<absl::Status> ConvertImage(IoLoop& loop, const Source& source, const std::string& path,
                                ImageSpec spec, NewImageFile::Existing existing,
                                const CopyOptions& options);

}  // namespace bothy::disk::tools
