// HugePageBacking: gives a kernel's working set (working_set.h) its huge pages while the kernel is
// being loaded.
//
// A page that is being written can't be gathered into a huge one, so each piece is backed before
// its first write, by whoever is about to write there; clearing huge pages, the costly part, is
// thereby shared by all threads that load. Pieces that nobody writes come last.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "boot/parallel_work.h"
#include "memory/guest_memory.h"
#include "memory/layout.h"

namespace bothy::boot {

class HugePageBacking {
 public:
  // For `ranges` of `memory`, guest-physical. Both outlive the tasks of BackRest.
  HugePageBacking(memory::GuestMemory& memory, const std::vector<memory::AddressRange>& ranges);

  // Returns when the pieces that overlap [gpa, gpa + size) are backed. Thread-safe.
  void Back(uint64_t gpa, uint64_t size);
  // Has the others backed as well. This object outlives the tasks.
  void BackRest(ParallelWork& work);

 private:
  struct Piece {
    explicit Piece(const memory::AddressRange& where) : range(where) {}
    const memory::AddressRange range;
    std::once_flag backed;
  };
  void Back(Piece& piece);

  memory::GuestMemory& memory_;
  std::vector<std::unique_ptr<Piece>> pieces_;  // none: nothing is backed
};

}  // namespace bothy::boot
