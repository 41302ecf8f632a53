#include "cmd/bothyctl/top_view.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cmd/bothyctl/error_text.h"
#include "cmd/bothyctl/json_form.h"
#include "cmd/bothyctl/natural_order.h"

namespace bothy::bothyctl {
namespace {

constexpr double kNsPerPercent = 1e7;  // of a second
constexpr size_t kNameColumns = 19;    // at 80 columns
constexpr size_t kUsualColumns = 80;
constexpr size_t kLeastColumns = 40;
constexpr size_t kLeastRows = 4;

std::string ShortBytes(uint64_t bytes) {
  constexpr std::pair<char, int> kUnits[] = {{'T', 40}, {'G', 30}, {'M', 20}, {'K', 10}};
  for (const auto& [unit, shift] : kUnits) {
    const double amount = static_cast<double>(bytes) / static_cast<double>(uint64_t{1} << shift);
    if (amount >= 1) return absl::StrFormat("%.*f%c", amount < 9.95 ? 1 : 0, amount, unit);
  }
  return absl::StrCat(bytes);
}

bool ContinuesCharacter(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// The end of a path says more than its beginning.
std::string Fitted(const std::string& name, size_t columns) {
  if (name.size() <= columns) return name;
  size_t begin = name.size() - (columns - 2);
  while (begin < name.size() && ContinuesCharacter(name[begin])) ++begin;
  return absl::StrCat("..", name.substr(begin));
}

double Of(const Rates& rates, const std::string& name) {
  const auto found = rates.find(name);
  return found == rates.end() ? 0 : found->second;
}

std::string Name(const TopServer& server) {
  const bool has_id = server.rates && !server.rates->now.log_id.empty();
  return OneLine(has_id ? server.rates->now.log_id : server.address);
}

std::string ServerLine(const TopServer& server, size_t name_columns) {
  const std::string name =
      absl::StrFormat("%-*s", static_cast<int>(name_columns), Fitted(Name(server), name_columns));
  if (!server.error.empty()) return absl::StrCat(name, " ", OneLine(server.error));
  if (!server.rates) return absl::StrCat(name, " ...");
  const TopRates& rates = *server.rates;
  const std::string state = OneLine(rates.now.state).substr(0, 8);
  if (rates.now.processors.empty()) return absl::StrCat(name, " ", state);
  double exits = 0;
  for (const auto& [number, processor] : rates.processors) exits += ExitsOf(processor);
  return absl::StrFormat(
      "%s %-8s %6.1f %6s %6s %6s %6s %6s %9s", name, state,
      Total(rates.processors, "runtime_ns") / kNsPerPercent, ShortRate(exits),
      ShortRate(Total(rates.disks, "read_bytes")), ShortRate(Total(rates.disks, "written_bytes")),
      ShortRate(Total(rates.nics, "received_bytes")), ShortRate(Total(rates.nics, "sent_bytes")),
      absl::StrCat(ShortBytes(rates.now.resident_bytes), "/", ShortBytes(rates.now.ram_bytes)));
}

// Names with numbers in the order of those.
std::vector<std::string> InOrder(const std::map<std::string, Rates>& parts) {
  std::vector<std::string> names;
  names.reserve(parts.size());
  for (const auto& [name, rates] : parts) names.push_back(name);
  std::sort(names.begin(), names.end(), NaturallyLess);
  return names;
}

// "port 5.6k, mmio 300", the most first.
std::string Reasons(const Rates& processor) {
  std::vector<std::pair<double, std::string>> reasons;
  for (const auto& [reason, rate] : processor) {
    if (reason != "runtime_ns" && rate > 0) reasons.emplace_back(rate, reason);
  }
  std::sort(reasons.begin(), reasons.end(), std::greater<>());
  return absl::StrJoin(reasons, ", ", [](std::string* out, const auto& reason) {
    absl::StrAppend(out, OneLine(reason.second), " ", ShortRate(reason.first));
  });
}

void AppendDetails(const TopRates& rates, std::vector<std::string>& lines) {
  if (!rates.processors.empty()) {
    lines.insert(lines.end(), {"", "vCPU        CPU% EXITS/s  by reason"});
    for (const std::string& name : InOrder(rates.processors)) {
      const Rates& processor = rates.processors.at(name);
      lines.push_back(absl::StrFormat("%-9s %6.1f %7s  %s", OneLine(name),
                                      Of(processor, "runtime_ns") / kNsPerPercent,
                                      ShortRate(ExitsOf(processor)), Reasons(processor)));
    }
  }
  if (!rates.disks.empty()) {
    lines.insert(lines.end(), {"", "DISK      READ/s WRITE/s COMMANDS/s IN FLIGHT ERRORS"});
    for (const std::string& name : InOrder(rates.disks)) {
      const Rates& disk = rates.disks.at(name);
      const Counters& now = rates.now.disks.at(name);
      lines.push_back(
          absl::StrFormat("%-9s %6s %7s %10s %9u %6u", OneLine(name),
                          ShortRate(Of(disk, "read_bytes")), ShortRate(Of(disk, "written_bytes")),
                          ShortRate(Of(disk, "commands")), now.at("in_flight"), now.at("errors")));
    }
  }
  if (!rates.nics.empty()) {
    lines.insert(lines.end(), {"", "NIC         IN/s   OUT/s  FRAMES IN/s  OUT/s  DROPS/s"});
    for (const std::string& name : InOrder(rates.nics)) {
      const Rates& nic = rates.nics.at(name);
      lines.push_back(
          absl::StrFormat("%-9s %6s %7s %12s %6s %8s", OneLine(name),
                          ShortRate(Of(nic, "received_bytes")), ShortRate(Of(nic, "sent_bytes")),
                          ShortRate(Of(nic, "received_frames")), ShortRate(Of(nic, "sent_frames")),
                          ShortRate(Of(nic, "received_drops") + Of(nic, "sent_drops"))));
    }
  }
}

std::string JsonRates(const std::map<std::string, Rates>& parts) {
  return absl::StrCat("{",
                      absl::StrJoin(InOrder(parts), ", ",
                                    [&](std::string* out, const auto& name) {
                                      absl::StrAppend(
                                          out, JsonString(name), ": {",
                                          absl::StrJoin(parts.at(name), ", ",
                                                        [](std::string* inner, const auto& rate) {
                                                          absl::StrAppend(
                                                              inner, JsonString(rate.first), ": ",
                                                              absl::StrFormat("%.3f", rate.second));
                                                        }),
                                          "}");
                                    }),
                      "}");
}

std::string JsonServer(const TopServer& server) {
  const std::string begin = absl::StrCat("{\"address\": ", JsonString(server.address));
  if (!server.error.empty())
    return absl::StrCat(begin, ", \"error\": ", JsonString(server.error), "}");
  if (!server.rates) return absl::StrCat(begin, "}");
  const TopRates& rates = *server.rates;
  return absl::StrCat(
      begin, ", \"state\": ", JsonString(rates.now.state),
      ", \"log_id\": ", JsonString(rates.now.log_id), ", \"ram_bytes\": ", rates.now.ram_bytes,
      ", \"resident_bytes\": ", rates.now.resident_bytes,
      ", \"processors\": ", JsonRates(rates.processors), ", \"disks\": ", JsonRates(rates.disks),
      ", \"nics\": ", JsonRates(rates.nics), "}");
}

}  // namespace

std::string ShortRate(double rate) {
  constexpr std::pair<char, double> kUnits[] = {{'T', 1e12}, {'G', 1e9}, {'M', 1e6}, {'k', 1e3}};
  for (const auto& [unit, size] : kUnits) {
    const double amount = rate / size;
    // What would round up to a thousand is one of the next.
    if (amount >= 0.9995) {
      return absl::StrFormat("%.*f%c", amount < 9.95 ? 1 : 0, std::min(amount, 9999.0), unit);
    }
  }
  return absl::StrFormat("%.0f", std::max(rate, 0.0));
}

std::string TopText(const std::vector<TopServer>& servers, const std::string& clock,
                    const ScreenSize& size) {
  const size_t columns = std::max(size.columns, kLeastColumns);
  const size_t name_columns =
      columns > kUsualColumns ? kNameColumns + (columns - kUsualColumns) : kNameColumns;
  const auto running = std::count_if(servers.begin(), servers.end(), [](const TopServer& server) {
    return server.rates && server.error.empty() && server.rates->now.state == "running";
  });
  std::vector<std::string> lines = {
      absl::StrFormat("bothy top  %s  %d server%s, %d running", clock, servers.size(),
                      servers.size() == 1 ? "" : "s", running),
      "",
      absl::StrFormat("%-*s %-8s %6s %6s %6s %6s %6s %6s %9s", static_cast<int>(name_columns), "VM",
                      "STATE", "CPU%", "EXIT/s", "READ/s", "WRIT/s", "IN/s", "OUT/s", "RAM")};
  for (const TopServer& server : servers) lines.push_back(ServerLine(server, name_columns));
  if (servers.size() == 1 && servers[0].error.empty() && servers[0].rates) {
    AppendDetails(*servers[0].rates, lines);
  }
  std::string text;
  for (std::string& line : lines) {
    while (line.ends_with(' ')) line.pop_back();
    absl::StrAppend(&text, line, "\n");
  }
  return CutToSize(text, {.columns = columns, .rows = std::max(size.rows, kLeastRows)});
}

std::string TopJson(const std::vector<TopServer>& servers) {
  return absl::StrCat("{\"servers\": [",
                      absl::StrJoin(servers, ", ",
                                    [](std::string* out, const TopServer& server) {
                                      absl::StrAppend(out, JsonServer(server));
                                    }),
                      "]}\n");
}

}  // namespace bothy::bothyctl
