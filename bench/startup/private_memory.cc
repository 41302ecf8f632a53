#include "bench/startup/private_memory.h"

#include <cstdlib>
#include <fstream>
#include <string>

#include "bench/process.h"

namespace bothy::bench {
namespace {

// The value of a line "NAME:   123 kB", or 0 when `line` isn't NAME's.
uint64_t Field(std::string_view line, std::string_view name) {
  if (!line.starts_with(name)) return 0;
  return std::strtoull(line.data() + name.size(), nullptr, 10);
}

}  // namespace

PrivateMemory ReadPrivateMemory(pid_t pid, std::string_view guest_ram) {
  const std::string path = "/proc/" + std::to_string(pid) + "/smaps";
  std::ifstream file(path);
  PrivateMemory memory;
  bool is_guest_ram = false;
  bool seen_guest_ram = false;
  for (std::string line; std::getline(file, line);) {
    // A mapping begins with its addresses in lower-case digits, a field with an upper-case letter.
    if (!line.empty() && (line[0] < 'A' || line[0] > 'Z')) {
      is_guest_ram = line.find("/memfd:" + std::string(guest_ram)) != std::string::npos;
      seen_guest_ram |= is_guest_ram;
    } else if (!is_guest_ram) {
      memory.dirty_kib += Field(line, "Private_Dirty:");
      memory.clean_kib += Field(line, "Private_Clean:");
    }
  }
  if (!seen_guest_ram) Fail(path + " has no mapping of guest RAM");
  return memory;
}

}  // namespace bothy::bench
