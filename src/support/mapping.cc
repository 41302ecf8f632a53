#include "support/mapping.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "support/check.h"

namespace bothy {
namespace {

constexpr size_t kPageBytes = 4096;

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
  // Bytes of the reservation in front of the mapping, and up to the end of its last page.
  const size_t before = -reinterpret_cast<uintptr_t>(reservation) & (alignment_bytes - 1);
  const size_t used = before + ((size_bytes + kPageBytes - 1) & ~(kPageBytes - 1));
  auto* const base = static_cast<std::byte*>(reservation);
  void* address = ::mmap(base + before, size_bytes, protection, flags | MAP_FIXED, fd,
                         static_cast<off_t>(offset));
  if (address == MAP_FAILED) {
    const int error = errno;
    CHECK(::munmap(reservation, reserved) == 0);
    return ErrnoStatus(error, what);
  }
  if (before > 0) CHECK(::munmap(reservation, before) == 0);
  if (reserved > used) CHECK(::munmap(base + used, reserved - used) == 0);
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
