#include "disk/testing/peak_heap.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace bothy::disk {
namespace {

std::atomic<size_t> g_bytes = 0;
std::atomic<size_t> g_peak = 0;

void* Count(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  const size_t bytes = g_bytes.fetch_add(malloc_usable_size(memory)) + malloc_usable_size(memory);
  size_t peak = g_peak.load();
  while (bytes > peak && !g_peak.compare_exchange_weak(peak, bytes)) continue;
  return memory;
}

void Free(void* memory) {
  if (memory != nullptr) g_bytes.fetch_sub(malloc_usable_size(memory));
  std::free(memory);
}

}  // namespace

PeakHeap::PeakHeap() : before_(g_bytes) { g_peak = g_bytes.load(); }

size_t PeakHeap::bytes() const { return g_peak - before_; }

}  // namespace bothy::disk

// The array and nothrow forms come here, too.
void* operator new(size_t bytes) { return bothy::disk::Count(std::malloc(bytes)); }
void* operator new(size_t bytes, std::align_val_t alignment) {
  const auto unit = static_cast<size_t>(alignment);
  return bothy::disk::Count(std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit));
}
void operator delete(void* memory) noexcept { bothy::disk::Free(memory); }
void operator delete(void* memory, size_t /*bytes*/) noexcept { bothy::disk::Free(memory); }
void operator delete(void* memory, std::align_val_t /*alignment*/) noexcept {
  bothy::disk::Free(memory);
}
void operator delete(void* memory, size_t /*bytes*/, std::align_val_t /*alignment*/) noexcept {
  bothy::disk::Free(memory);
}
