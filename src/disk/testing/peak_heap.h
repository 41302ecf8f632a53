// PeakHeap: how much memory a piece of work takes, for tests of what hostile input may cost.
//
// Linking it replaces operator new and operator delete of the whole program, so a test program of
// its own is the place for it.
#pragma once

#include <cstddef>

namespace bothy::disk {

// Counts from its construction on; one at a time, and nothing allocated before may be freed while
// it counts that matters for the result.
class PeakHeap {
 public:
  PeakHeap();
  // The most that was allocated at once since then, above what there was.
  [[nodiscard]] size_t bytes() const;

 private:
  size_t before_;
};

}  // namespace bothy::disk
