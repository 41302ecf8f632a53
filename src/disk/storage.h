// Storage: what an image's bytes lie in: a host file, a block device, memory in tests.
//
// The formats (raw/, vhd1/, vhdx/) are written against it, so that their tests can record, cut off,
// reorder and fail every single access. All methods on one thread, that of the loop behind it.
// Nothing here knows sectors: any offset and length is fine.
#pragma once

#include <cstdint>
#include <string>

#include "disk/request.h"

namespace bothy::disk {

class Storage {
 public:
  // No request is in flight any more. Releases the lock and the descriptor.
  virtual ~Storage() = default;

  // Reading past size() is OutOfRange; writing past it extends the storage where it can grow. A
  // full host is ResourceExhausted. Messages name the storage and the offset.
  virtual void Submit(Request& request) = 0;
  // Bytes. Follows Resize and extending writes at once, others' changes after Refresh.
  [[nodiscard]] virtual uint64_t size() const = 0;
  // New bytes read as zero and take no room. Unimplemented for a block device.
  virtual Task<absl::Status> Resize(uint64_t bytes) = 0;
  // Looks again how big the storage is, for an image that somebody grew.
  virtual absl::Status Refresh() = 0;

  // "/images/a.vhdx", for messages, inspection and relative parent paths.
  [[nodiscard]] virtual const std::string& path() const = 0;
  [[nodiscard]] virtual bool read_only() const = 0;
  // The sizes that the storage itself works in: 512 and 4096 for most files' disks.
  [[nodiscard]] virtual uint32_t logical_block_bytes() const = 0;
  [[nodiscard]] virtual uint32_t physical_block_bytes() const = 0;
  // The descriptor to map pages of it, or -1 where it has none.
  [[nodiscard]] virtual int fd() const = 0;
};

}  // namespace bothy::disk
