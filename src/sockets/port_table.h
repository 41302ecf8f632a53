// PortTable: which Unix socket of the host stands behind which port that guests connect to.
//
// The sockets needn't exist: who listens there is found out when a guest connects. Plain state, one
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "inspect/node.h"
#include "support/status.h"

namespace bothy::sockets {

class PortTable {
 public:
  // Of a port without an entry the socket is "<base>_<port>" (the convention of hybrid vsock); an
  // empty `base`: there is none.
  explicit PortTable(std::string base = "") : base_(std::move(base)) {}

  absl::Status Add(uint32_t port, const std::string& path);     // AlreadyExists
  absl::Status Update(uint32_t port, const std::string& path);  // NotFound
  absl::Status Remove(uint32_t port);                           // NotFound

  // What the table has for `port`.
  [[nodiscard]] std::optional<std::string> Listener(uint32_t port) const;
  // Where to connect for a guest that connects to `port`.
  [[nodiscard]] std::optional<std::string> PathFor(uint32_t port) const;

  [[nodiscard]] size_t size() const { return paths_.size(); }
  // A value for each entry, named by its port.
  void Inspect(inspect::Node& node) const;

 private:
  const std::string base_;
  std::map<uint32_t, std::string> paths_;
};

}  // namespace bothy::sockets
