#include "tests/integration/process_figures.h"

#include <fcntl.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

namespace bothy::integration {
namespace {

namespace fs = std::filesystem;

constexpr unsigned long kExiting = 0x4;  // PF_EXITING, include/linux/sched.h

std::string Contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

fs::path Proc(pid_t pid) { return fs::path("/proc") / std::to_string(pid); }

// The flags of a thread, field 9 of proc(5)'s stat; the name before may contain anything.
bool Exiting(const std::string& stat) {
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return true;  // gone while we looked
  std::istringstream fields(stat.substr(name_end + 1));
  std::string state;
  long skipped = 0;
  unsigned long flags = 0;
  fields >> state;
  for (int i = 0; i < 5; ++i) fields >> skipped;
  fields >> flags;
  return (flags & kExiting) != 0;
}

std::vector<fs::path> LiveThreads(pid_t pid) {
  std::vector<fs::path> threads;
  for (const auto& task : fs::directory_iterator(Proc(pid) / "task")) {
    if (!Exiting(Contents(task.path() / "stat"))) threads.push_back(task.path());
  }
  return threads;
}

int64_t NumberOf(const std::string& status, const std::string& name) {
  const size_t at = status.find(name + ":");
  return at == std::string::npos ? -1 : std::strtoll(&status[at + name.size() + 1], nullptr, 10);
}

}  // namespace

ProcessFigures FiguresOf(pid_t pid) {
  ProcessFigures figures;
  figures.threads = static_cast<int>(LiveThreads(pid).size());
  const fs::directory_iterator descriptors(Proc(pid) / "fd");
  figures.descriptors = static_cast<int>(std::distance(begin(descriptors), end(descriptors)));
  const std::string maps = Contents(Proc(pid) / "maps");
  figures.mappings = static_cast<int>(std::count(maps.begin(), maps.end(), '\n'));
  const std::string status = Contents(Proc(pid) / "status");
  figures.anonymous_kib = NumberOf(status, "RssAnon");
  figures.shared_kib = NumberOf(status, "RssShmem");
  return figures;
}

std::ostream& operator<<(std::ostream& out, const ProcessFigures& figures) {
  return out << figures.threads << " threads, " << figures.descriptors << " descriptors, "
             << figures.mappings << " mappings, " << figures.anonymous_kib << " KiB private, "
             << figures.shared_kib << " KiB shared";
}

std::string ThreadNames(pid_t pid) {
  std::vector<std::string> names;
  for (const fs::path& thread : LiveThreads(pid)) names.push_back(Contents(thread / "comm"));
  std::sort(names.begin(), names.end());
  std::string all;
  for (const std::string& name : names) all += name;
  return all;
}

uint64_t ThreadSwitches(pid_t pid, const std::string& name) {
  int64_t switches = 0;
  for (const fs::path& thread : LiveThreads(pid)) {
    if (Contents(thread / "comm") != name + "\n") continue;
    const std::string status = Contents(thread / "status");
    for (const char* const kind : {"\nvoluntary_ctxt_switches", "\nnonvoluntary_ctxt_switches"}) {
      switches += NumberOf(status, kind);
    }
  }
  return static_cast<uint64_t>(switches);
}

int OpenGuestRam(pid_t pid) {
  for (const auto& descriptor : fs::directory_iterator(Proc(pid) / "fd")) {
    std::error_code error;
    const fs::path target = fs::read_symlink(descriptor.path(), error);
    if (target.string().starts_with("/memfd:guest-ram")) {
      return ::open(descriptor.path().c_str(), O_RDWR | O_CLOEXEC);
    }
  }
  return -1;
}

}  // namespace bothy::integration
