// What a VMM's process keeps in memory for itself.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string_view>

namespace bothy::bench {

struct PrivateMemory {
  uint64_t dirty_kib = 0;  // written by the process: heap, stacks, relocated data
  uint64_t clean_kib = 0;  // pages of files that no other process maps now
  [[nodiscard]] uint64_t total_kib() const { return dirty_kib + clean_kib; }
};

// Resident pages that only process `pid` maps, without those of the memfd that is guest RAM, whose
// name begins with `guest_ram`. From /proc/PID/smaps.
PrivateMemory ReadPrivateMemory(pid_t pid, std::string_view guest_ram);

}  // namespace bothy::bench
