#include "disk/disk.h"

#include "absl/strings/str_cat.h"

namespace bothy::disk {

Task<Disk::MappedSync> Disk::SyncMapped() {
  // Right for a disk whose flush is nothing but that of its file.
  MappedSync sync;
  sync.status = co_await Flush(*this);
  sync.stores_lost = !sync.status.ok();
  co_return sync;
}

absl::Status CheckRequest(const Geometry& geometry, const Request& request) {
  if (request.operation == Operation::kFlush) return absl::OkStatus();
  const uint32_t sector = geometry.logical_sector_bytes;
  if (request.offset % sector != 0 || request.length % sector != 0) {
    return absl::InvalidArgumentError(absl::StrCat("offset ", request.offset, ", length ",
                                                   request.length, ": not whole sectors of ",
                                                   sector, " bytes"));
  }
  if (request.offset > geometry.size_bytes ||
      request.length > geometry.size_bytes - request.offset) {
    return absl::InvalidArgumentError(absl::StrCat("offset ", request.offset, ", length ",
                                                   request.length, ": past the end of the disk, ",
                                                   geometry.size_bytes, " bytes"));
  }
  if (request.operation != Operation::kRead && geometry.read_only) {
    return absl::PermissionDeniedError("the disk is read-only");
  }
  if (request.operation == Operation::kRead || request.operation == Operation::kWrite) {
    uint64_t total = 0;
    for (const iovec& buffer : request.buffers) total += buffer.iov_len;
    if (total != request.length) {
      return absl::InvalidArgumentError(
          absl::StrCat("buffers of ", total, " bytes for a length of ", request.length));
    }
  }
  return absl::OkStatus();
}

}  // namespace bothy::disk
