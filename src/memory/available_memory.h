// How much memory this process could still take before the host would have to kill somebody.
#pragma once

#include <cstdint>
#include <string>

namespace bothy::memory {

// Bytes: what the host has available (proc(5), MemAvailable), or less where a memory limit of a
// cgroup that this process is in leaves less, its page cache counted as free (beyond memory.high
// populating isn't killed, but slowed down to a crawl); UINT64_MAX when nothing tells. cgroup v2 at
// /sys/fs/cgroup or /sys/fs/cgroup/unified, v1 at /sys/fs/cgroup/memory. A moment later it may be
// another number. `root` is prepended to every path, for tests. Thread-safe.
[[nodiscard]] uint64_t AvailableMemoryBytes(const std::string& root = "");

}  // namespace bothy::memory
