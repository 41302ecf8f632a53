#include "sockets/port_table.h"

#include "absl/strings/str_cat.h"

namespace bothy::sockets {
namespace {

absl::Status NoEntry(uint32_t port) {
  return absl::NotFoundError(absl::StrCat("port ", port, " has no listener; ADD gives it one"));
}

}  // namespace

absl::Status PortTable::Add(uint32_t port, const std::string& path) {
  const auto [entry, added] = paths_.emplace(port, path);
  if (added) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat("port ", port, " goes to ", entry->second,
                                               " already; UPDATE changes where it goes"));
}

absl::Status PortTable::Update(uint32_t port, const std::string& path) {
  const auto entry = paths_.find(port);
  if (entry == paths_.end()) return NoEntry(port);
  entry->second = path;
  return absl::OkStatus();
}

absl::Status PortTable::Remove(uint32_t port) {
  return paths_.erase(port) != 0 ? absl::OkStatus() : NoEntry(port);
}

std::optional<std::string> PortTable::Listener(uint32_t port) const {
  const auto entry = paths_.find(port);
  return entry == paths_.end() ? std::nullopt : std::optional(entry->second);
}

std::optional<std::string> PortTable::PathFor(uint32_t port) const {
  std::optional<std::string> listener = Listener(port);
  if (listener.has_value() || base_.empty()) return listener;
  return absl::StrCat(base_, "_", port);
}

void PortTable::Inspect(inspect::Node& node) const {
  for (const auto& [port, path] : paths_) node.Value(absl::StrCat(port), path);
}

}  // namespace bothy::sockets
