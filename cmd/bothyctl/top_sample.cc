#include "cmd/bothyctl/top_sample.h"

#include <charconv>
#include <initializer_list>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace bothy::bothyctl {
namespace {

using google::protobuf::Value;

constexpr char kRuntime[] = "runtime_ns";
// Not a counter: how many there are now.
constexpr char kInFlight[] = "in_flight";

// Null: there is no such node.
const Value* Find(const Value& directory, std::initializer_list<const char*> path) {
  const Value* node = &directory;
  for (const char* const name : path) {
    if (!node->has_struct_value()) return nullptr;
    const auto& fields = node->struct_value().fields();
    const auto found = fields.find(name);
    if (found == fields.end()) return nullptr;
    node = &found->second;
  }
  return node;
}

// Beyond 2^53 numbers are text.
uint64_t Number(const Value* node) {
  if (node == nullptr) return 0;
  if (node->has_number_value()) {
    const double number = node->number_value();
    return number >= 0 && number < 0x1p64 ? static_cast<uint64_t>(number) : 0;
  }
  const std::string& text = node->string_value();
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? number : 0;
}
uint64_t Number(const Value& directory, std::initializer_list<const char*> path) {
  return Number(Find(directory, path));
}

std::string Text(const Value& directory, std::initializer_list<const char*> path) {
  const Value* const node = Find(directory, path);
  return node == nullptr ? "" : node->string_value();
}

const google::protobuf::Map<std::string, Value>& Entries(const Value* directory) {
  return directory == nullptr ? google::protobuf::Struct::default_instance().fields()
                              : directory->struct_value().fields();
}

uint64_t SumOf(const Value* directory) {
  uint64_t sum = 0;
  for (const auto& [name, value] : Entries(directory)) sum += Number(&value);
  return sum;
}

Counters Disk(const Value& disk) {
  Counters counters;
  for (const char* const name :
       {"read_bytes", "written_bytes", "commands", "errors", "in_flight"}) {
    counters[name] = Number(disk, {name});
  }
  return counters;
}

Counters Nic(const Value& nic) {
  const Value* const backend = Find(nic, {"card", "backend"});
  Counters counters;
  if (backend == nullptr) return counters;
  for (const char* const name :
       {"received_bytes", "received_frames", "sent_bytes", "sent_frames"}) {
    counters[name] = Number(*backend, {name});
  }
  counters["received_drops"] = SumOf(Find(*backend, {"receive_drops"}));
  counters["sent_drops"] = SumOf(Find(*backend, {"send_drops"}));
  return counters;
}

std::map<std::string, Rates> RatesOf(const std::map<std::string, Counters>& before,
                                     const std::map<std::string, Counters>& now, double seconds) {
  std::map<std::string, Rates> rates;
  for (const auto& [part, counters] : now) {
    const auto old_part = before.find(part);
    if (old_part == before.end()) continue;
    for (const auto& [name, count] : counters) {
      const auto old = old_part->second.find(name);
      if (name == kInFlight || old == old_part->second.end()) continue;
      const uint64_t since = count >= old->second ? count - old->second : count;
      rates[part][name] = static_cast<double>(since) / seconds;
    }
  }
  return rates;
}

}  // namespace

TopSample ReadTopSample(const Value& root, std::chrono::steady_clock::time_point at) {
  TopSample sample;
  sample.at = at;
  sample.state = Text(root, {"vm", "state"});
  sample.log_id = Text(root, {"vm", "log_id"});
  sample.ram_bytes = Number(root, {"memory", "ram_bytes"});
  sample.resident_bytes = Number(root, {"memory", "resident_bytes"});
  for (const auto& [name, processor] : Entries(Find(root, {"processors"}))) {
    Counters& counters = sample.processors[name];
    counters[kRuntime] = Number(processor, {kRuntime});
    for (const auto& [reason, count] : Entries(Find(processor, {"exits"}))) {
      counters[reason] = Number(&count);
    }
  }
  for (const auto& [name, device] : Entries(Find(root, {"devices"}))) {
    if (absl::StartsWith(name, "scsi")) {
      for (const auto& [lun, disk] : Entries(Find(device, {"luns"}))) {
        sample.disks[absl::StrCat(name, ":", lun)] = Disk(disk);
      }
    } else if (absl::StartsWith(name, "net")) {
      sample.nics[name] = Nic(device);
    }
  }
  return sample;
}

TopRates RatesBetween(const TopSample& before, TopSample now) {
  TopRates rates;
  const double seconds = std::chrono::duration<double>(now.at - before.at).count();
  if (seconds > 0) {
    rates.processors = RatesOf(before.processors, now.processors, seconds);
    rates.disks = RatesOf(before.disks, now.disks, seconds);
    rates.nics = RatesOf(before.nics, now.nics, seconds);
  }
  rates.now = std::move(now);
  return rates;
}

double ExitsOf(const Rates& processor) {
  double sum = 0;
  for (const auto& [reason, rate] : processor) {
    if (reason != kRuntime) sum += rate;
  }
  return sum;
}

double Total(const std::map<std::string, Rates>& parts, const std::string& name) {
  double sum = 0;
  for (const auto& [part, rates] : parts) {
    const auto found = rates.find(name);
    if (found != rates.end()) sum += found->second;
  }
  return sum;
}

}  // namespace bothy::bothyctl
