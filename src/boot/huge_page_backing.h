// HugePageBacking: gives a kernel's working set (working_set.h) its huge pages while the kernel is
// being loaded.
//
// A page that is being written can't be gathered into a huge one, so each piece is backed before
// its first write, by whoever is about to write there; clearing huge pages, the costly part, is
// thereby shared by all threads that load.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "boot/parallel_work.h"
#include "memory/guest_memory.h"
#include "memory/layout.h"

namespace bothy::boot {

class HugePageBacking {
 public:
  // For `ranges` of `memory`, guest-physical.
  HugePageBacking(memory::GuestMemory& memory, const std::vector<memory::AddressRange>& ranges);

  // Returns when the pieces that overlap [gpa, gpa + size) are backed; while another thread is at
  // one of them, this one backs others. Whether they cover the whole range, even where the host had
  // no huge pages to give. Thread-safe.
  bool Back(uint64_t gpa, uint64_t size);
  // Has all pieces backed, from the first on, by helpers that have nothing else to do. This object
  // outlives the tasks.
  void BackAll(ParallelWork& work);

 private:
  enum class State : uint8_t { kNew, kTaken, kBacked };
  struct Piece {
    memory::AddressRange range;
    State state = State::kNew;  // guarded by mutex_
  };
  // Backs `piece`, which is new, with `lock` released meanwhile.
  void Back(Piece& piece, std::unique_lock<std::mutex>& lock);

  memory::GuestMemory& memory_;
  std::vector<Piece> pieces_;  // none: nothing is backed
  std::mutex mutex_;
  std::condition_variable backed_;
};

}  // namespace bothy::boot
