#include "memory/available_memory.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>

#include "memory/layout.h"

namespace bothy::memory {
namespace {

// A file of one number; nothing for "max" or where there is no such file.
std::optional<uint64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  uint64_t number = 0;
  if (!(file >> number)) return std::nullopt;
  return number;
}

// The sum of the numbers that follow these names at the beginning of a line.
uint64_t SumOf(const std::string& path, std::string_view first, std::string_view second) {
  std::ifstream file(path);
  uint64_t sum = 0;
  std::string name;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    uint64_t number = 0;
    if (words >> name >> number && (name == first || name == second)) sum += number;
  }
  return sum;
}

// Of one version of cgroups.
struct Files {
  const char* limit;
  const char* soft_limit;
  const char* usage;
  const char* inactive_cache;  // in memory.stat
  const char* active_cache;
};
constexpr Files kVersion2 = {"/memory.max", "/memory.high", "/memory.current", "inactive_file",
                             "active_file"};
constexpr Files kVersion1 = {"/memory.limit_in_bytes", "/none", "/memory.usage_in_bytes",
                             "total_inactive_file", "total_active_file"};

// What the limits of the cgroup `path` below `mount`, and of those around it, leave. A path that
// isn't there is another cgroup namespace's; then its nearest ancestor is what can be seen.
uint64_t LeftInCgroup(const std::string& mount, std::string path, const Files& files) {
  uint64_t left = UINT64_MAX;
  while (true) {
    const std::string folder = mount + (path == "/" ? "" : path);
    const uint64_t limit = std::min(ReadNumber(folder + files.limit).value_or(UINT64_MAX),
                                    ReadNumber(folder + files.soft_limit).value_or(UINT64_MAX));
    const std::optional<uint64_t> usage = ReadNumber(folder + files.usage);
    if (limit != UINT64_MAX && usage) {
      const uint64_t cache =
          SumOf(folder + "/memory.stat", files.inactive_cache, files.active_cache);
      const uint64_t in_use = *usage - std::min(*usage, cache);
      left = std::min(left, limit - std::min(limit, in_use));
    }
    if (path.empty() || path == "/") return left;
    path.resize(path.rfind('/'));
  }
}

}  // namespace

uint64_t AvailableMemoryBytes(const std::string& root) {
  uint64_t left = UINT64_MAX;
  std::ifstream meminfo(root + "/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);) {
    constexpr std::string_view kName = "MemAvailable:";
    if (line.rfind(kName, 0) == 0) {
      left = std::strtoull(line.c_str() + kName.size(), nullptr, 10) * kKiB;
    }
  }
  // "hierarchy:controllers:path"; version 2 is the hierarchy 0 without controllers.
  std::ifstream cgroups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(cgroups, line);) {
    const size_t controllers = line.find(':');
    const size_t path_at =
        controllers == std::string::npos ? controllers : line.find(':', controllers + 1);
    if (path_at == std::string::npos) continue;
    const std::string path = line.substr(path_at + 1);
    if (path.empty() || path[0] != '/') continue;
    const std::string named = "," + line.substr(controllers + 1, path_at - controllers - 1) + ",";
    const std::string mounts = root + "/sys/fs/cgroup";
    if (named == ",,") {
      left = std::min({left, LeftInCgroup(mounts, path, kVersion2),
                       LeftInCgroup(mounts + "/unified", path, kVersion2)});
    } else if (named.find(",memory,") != std::string::npos) {
      left = std::min(left, LeftInCgroup(mounts + "/memory", path, kVersion1));
    }
  }
  return left;
}

}  // namespace bothy::memory
