#include "support/mapping.h"

#include <cerrno>

#include "support/check.h"

namespace bothy {
namespace {

constexpr uintptr_t kPageBytes = 4096;

}  // namespace

absl::StatusOr<Mapping> Mapping::Create(size_t size_bytes, int protection, int flags, int fd,
                                        uint64_t offset, std::string_view what) {
  void* address = ::mmap(nullptr, size_bytes, protection, flags, fd, static_cast<off_t>(offset));
  if (address == MAP_FAILED) return ErrnoStatus(errno, what);
  Mapping mapping;
  mapping.data_ = address;
  mapping.size_ = size_bytes;
  return mapping;
}

absl::StatusOr<Mapping> Mapping::CreateAligned(size_t size_bytes, size_t alignment_bytes,
                                               int protection, int flags, int fd, uint64_t offset,
                                               std::string_view what) {
  // Reserve more than is needed, map over the aligned part, give the rest back.
  if (size_bytes > SIZE_MAX - alignment_bytes) return ErrnoStatus(ENOMEM, what);
  const size_t reserved = size_bytes + alignment_bytes;
  void* reservation =
      ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reservation == MAP_FAILED) return ErrnoStatus(errno, what);
  const auto base = reinterpret_cast<uintptr_t>(reservation);
  const uintptr_t aligned = (base + alignment_bytes - 1) & ~(alignment_bytes - 1);
  void* address = ::mmap(reinterpret_cast<void*>(aligned), size_bytes, protection,
                         flags | MAP_FIXED, fd, static_cast<off_t>(offset));
  if (address == MAP_FAILED) {
    const int error = errno;
    CHECK(::munmap(reservation, reserved) == 0);
    return ErrnoStatus(error, what);
  }
  const uintptr_t end = (aligned + size_bytes + kPageBytes - 1) & ~(kPageBytes - 1);
  if (aligned > base) CHECK(::munmap(reservation, aligned - base) == 0);
  if (base + reserved > end) {
    CHECK(::munmap(reinterpret_cast<void*>(end), base + reserved - end) == 0);
  }
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
