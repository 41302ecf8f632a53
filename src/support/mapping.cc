#include "support/mapping.h"

#include <cerrno>

#include "support/check.h"

namespace bothy {

absl::StatusOr<Mapping> Mapping::Create(size_t size_bytes, int protection, int flags, int fd,
                                        uint64_t offset, std::string_view what) {
  void* address = ::mmap(nullptr, size_bytes, protection, flags, fd, static_cast<off_t>(offset));
  if (address == MAP_FAILED) return ErrnoStatus(errno, what);
  Mapping mapping;
  mapping.data_ = address;
  mapping.size_ = size_bytes;
  return mapping;
}

void Mapping::Reset() {
  if (data_ != nullptr) CHECK(::munmap(data_, size_) == 0);
  data_ = nullptr;
  size_ = 0;
}

}  // namespace bothy
