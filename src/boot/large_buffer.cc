#include "boot/large_buffer.h"

#include <sys/mman.h>

#include <cstdlib>

namespace bothy::boot {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;

constexpr size_t RoundUp(size_t bytes) {
  return (bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
}

}  // namespace

absl::StatusOr<Mapping> AllocateLargeBuffer(size_t bytes) {
  auto mapping = Mapping::Create(RoundUp(bytes), PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, "buffer");
  // Without huge pages it is only slower.
  if (mapping.ok()) (void)::madvise(mapping->data(), mapping->size(), MADV_HUGEPAGE);
  return mapping;
}

void* AllocateForCodec(size_t bytes) {
  if (bytes < kHugePageBytes) return std::malloc(bytes);
  if (bytes > SIZE_MAX - kHugePageBytes) return nullptr;
  void* address = std::aligned_alloc(kHugePageBytes, RoundUp(bytes));
  if (address != nullptr) (void)::madvise(address, RoundUp(bytes), MADV_HUGEPAGE);
  return address;
}

void FreeForCodec(void* address) { std::free(address); }

}  // namespace bothy::boot
