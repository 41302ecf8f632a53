#include "tests/guest/facts.h"

#include <sys/klog.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <initializer_list>
#include <string_view>

#include "tests/guest/first_process.h"

namespace facts {
namespace {

using first_process::ReadFile;

int64_t Nanoseconds(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

std::string Line(const std::string& path) {
  std::string text = ReadFile(path.c_str());
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

// The value of "name<spaces>: value" in a file of such lines.
std::string Field(const std::string& text, std::string_view name) {
  for (size_t begin = 0; begin < text.size();) {
    size_t end = text.find('\n', begin);
    if (end == std::string::npos) end = text.size();
    const std::string_view line(text.data() + begin, end - begin);
    begin = end + 1;
    if (line.substr(0, name.size()) != name) continue;
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const size_t value = line.find_first_not_of(" \t", colon + 1);
    return value == std::string_view::npos ? "" : std::string(line.substr(value));
  }
  return "";
}

struct MemoryRange {
  uint64_t start;
  uint64_t end;  // inclusive
  std::string type;
};

// The firmware's memory map as the kernel was given it, before it changed anything.
std::vector<MemoryRange> FirmwareMemoryMap() {
  std::vector<MemoryRange> ranges;
  for (int i = 0;; ++i) {
    const std::string entry = "/sys/firmware/memmap/" + std::to_string(i);
    if (access(entry.c_str(), F_OK) != 0) return ranges;
    ranges.push_back({strtoull(Line(entry + "/start").c_str(), nullptr, 16),
                      strtoull(Line(entry + "/end").c_str(), nullptr, 16), Line(entry + "/type")});
  }
}

uint64_t RamBytes() {
  uint64_t total = 0;
  for (const MemoryRange& range : FirmwareMemoryMap())
    if (range.type == "System RAM") total += range.end - range.start + 1;
  return total;
}

std::string KernelLog() {
  constexpr int kReadAll = 3, kSize = 10;
  const int size = klogctl(kSize, nullptr, 0);
  if (size <= 0) return "";
  std::string log(static_cast<size_t>(size), '\0');
  const int read = klogctl(kReadAll, log.data(), size);
  log.resize(read > 0 ? static_cast<size_t>(read) : 0);
  return log;
}

// Lines of the kernel's log that have any of these signs.
std::vector<std::string> LogLines(std::initializer_list<std::string_view> signs) {
  std::vector<std::string> lines;
  const std::string log = KernelLog();
  for (size_t begin = 0; begin < log.size();) {
    const size_t end = std::min(log.find('\n', begin), log.size());
    const std::string_view line(log.data() + begin, end - begin);
    begin = end + 1;
    for (const std::string_view sign : signs) {
      if (line.find(sign) == std::string_view::npos) continue;
      lines.emplace_back(line);
      break;
    }
  }
  return lines;
}

// The largest step between two readings of the monotonic clock, one right after the other, for a
// while: a guest that is stopped and whose clock goes on meanwhile sees it.
int ClockGap(int milliseconds) {
  const int64_t start = Nanoseconds(CLOCK_MONOTONIC);
  const int64_t end = start + int64_t{milliseconds} * 1'000'000;
  int64_t largest = 0, backwards = 0;
  for (int64_t last = start, now = start; now < end; last = now) {
    now = Nanoseconds(CLOCK_MONOTONIC);
    if (now - last > largest) largest = now - last;
    if (now < last) ++backwards;
  }
  printf("largest %" PRId64 "\nbackwards %" PRId64 "\n", largest, backwards);
  return 0;
}

}  // namespace

std::string Clocks() {
  return std::to_string(Nanoseconds(CLOCK_MONOTONIC)) + " " +
         std::to_string(Nanoseconds(CLOCK_BOOTTIME)) + " " +
         std::to_string(Nanoseconds(CLOCK_REALTIME));
}

std::vector<std::string> All() {
  std::vector<std::string> facts;
  const auto add = [&facts](const std::string& name, const std::string& value) {
    facts.push_back(name + " " + value);
  };
  utsname system{};
  uname(&system);
  const std::string cpus = ReadFile("/proc/cpuinfo");
  add("kernel", system.release);
  add("cmdline", Line("/proc/cmdline"));
  add("cpus.online", std::to_string(sysconf(_SC_NPROCESSORS_ONLN)));
  add("cpus.list", Line("/sys/devices/system/cpu/online"));
  add("cpus.possible", Line("/sys/devices/system/cpu/possible"));
  add("cpus.model", Field(cpus, "model name"));
  add("cpus.siblings", Field(cpus, "siblings"));
  add("cpus.cores", Field(cpus, "cpu cores"));
  add("memory.ram_bytes", std::to_string(RamBytes()));
  add("memory.total_kib",
      std::to_string(strtoull(Field(ReadFile("/proc/meminfo"), "MemTotal").c_str(), nullptr, 10)));
  for (const MemoryRange& range : FirmwareMemoryMap()) {
    char text[96];
    snprintf(text, sizeof text, "0x%" PRIx64 " 0x%" PRIx64 " %s", range.start, range.end,
             range.type.c_str());
    add("memory.range", text);
  }
  add("clock.source", Line("/sys/devices/system/clocksource/clocksource0/current_clocksource"));
  add("clock.now", Clocks());
  for (const std::string& line : LogLines({"soft lockup", "hard LOCKUP", "detected stalls",
                                           "self-detected stall", "blocked for more than"})) {
    add("log.stall", line);
  }
  for (const std::string& line : LogLines({"BUG:", "WARNING:", "Marking clocksource"})) {
    add("log.complaint", line);
  }
  return facts;
}

std::string Introduction() {
  utsname system{};
  uname(&system);
  const std::string cpus = ReadFile("/proc/cpuinfo");
  char text[512];
  snprintf(text, sizeof text,
           "\n  kernel  %s %s\n          %s\n  CPUs    %ld: %s\n  memory  %" PRIu64
           " MiB, of which the kernel manages %s\n"
           "  clock   %s\n\n",
           system.sysname, system.release, system.version, sysconf(_SC_NPROCESSORS_ONLN),
           Field(cpus, "model name").c_str(), (RamBytes() + (1U << 20) - 1) >> 20,
           Field(ReadFile("/proc/meminfo"), "MemTotal").c_str(),
           Line("/sys/devices/system/clocksource/clocksource0/current_clocksource").c_str());
  return text;
}

int Main(int argc, char** argv) {
  const char* slash = strrchr(argv[0], '/');
  const std::string_view name = slash != nullptr ? slash + 1 : argv[0];
  if (name == "facts") {
    for (const std::string& fact : All()) puts(fact.c_str());
    return 0;
  }
  if (name == "clock-gap" && argc == 2) return ClockGap(atoi(argv[1]));
  fprintf(stderr, "usage: facts | clock-gap MILLISECONDS\n");
  return 2;
}

}  // namespace facts
