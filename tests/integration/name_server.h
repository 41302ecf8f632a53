// NameServer: a DNS server (RFC 1035) that knows one name, for guests to find it through the host.
//
// It has a thread of its own; the object's thread may be any.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <thread>

#include "support/unique_fd.h"

namespace bothy::integration {

class NameServer {
 public:
  // Serves UDP port 53 of `address`, both in dotted notation. Queries of type A for `name` are
  // answered with `answer`, others about it with nothing, all other names don't exist.
  NameServer(const std::string& address, const std::string& name, const std::string& answer);
  ~NameServer();
  NameServer(const NameServer&) = delete;
  NameServer& operator=(const NameServer&) = delete;

 private:
  void Serve();

  const std::string name_;  // as a question has it: each label behind its length
  std::array<uint8_t, 4> answer_{};
  UniqueFd socket_;
  UniqueFd end_;  // an eventfd
  std::thread thread_;
};

}  // namespace bothy::integration
