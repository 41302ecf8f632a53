// What a process holds, as /proc tells it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <ostream>
#include <string>

namespace bothy::integration {

struct ProcessFigures {
  // Threads that have been told to end and joined may still be on their way out of the kernel;
  // they aren't counted.
  int threads = 0;
  int descriptors = 0;
  int mappings = 0;
  int64_t anonymous_kib = 0;  // RssAnon: private memory
  int64_t shared_kib = 0;     // RssShmem: guest RAM, for one
};

[[nodiscard]] ProcessFigures FiguresOf(pid_t pid);
std::ostream& operator<<(std::ostream& out, const ProcessFigures& figures);

// Names of its threads, sorted, one a line.
[[nodiscard]] std::string ThreadNames(pid_t pid);
// How often its thread of that name has gone to sleep or lost the CPU; 0 when there is none.
[[nodiscard]] uint64_t ThreadSwitches(pid_t pid, const std::string& name);
// A descriptor of its guest RAM's file, opened anew; -1 when it has none.
[[nodiscard]] int OpenGuestRam(pid_t pid);

}  // namespace bothy::integration
