// HostStorage: an image file or a block device of the host.
//
// Buffered: the host's page cache is the disk's cache, and a flush is fdatasync(2).
#pragma once

#include <memory>
#include <string>

#include "disk/storage.h"
#include "support/io_loop.h"

namespace bothy::disk {

struct HostStorageOptions {
  std::string path;
  bool read_only = false;
};

// Opens what there is. A writable image excludes every other opener, a read-only one only those
// that write; QEMU's tools heed the lock and are heeded. NotFound, PermissionDenied,
// FailedPrecondition (in use), InvalidArgument (neither file nor block device). `loop` outlives the
// storage; the calls that may block are made elsewhere.
Task<absl::StatusOr<std::unique_ptr<Storage>>> OpenHostStorage(IoLoop& loop,
                                                               HostStorageOptions options);

// Makes a new, empty, writable file; AlreadyExists when there is something.
Task<absl::StatusOr<std::unique_ptr<Storage>>> CreateHostStorage(IoLoop& loop, std::string path);

}  // namespace bothy::disk
