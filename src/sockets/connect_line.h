// The line by which a program of the host says which port of the guest it wants, and the answer:
// the convention of hybrid vsock, as clients of Firecracker and of Cloud Hypervisor speak it.
//
//   CONNECT 52\n      from the program, once it is connected
//   OK 1073741824\n   when the guest has accepted: the host's port of this connection
//
// A connection that the guest doesn't want is closed without an answer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

namespace bothy::sockets {

// A line is not longer than that, with its newline.
inline constexpr size_t kMostConnectLine = 32;

struct ConnectLine {
  uint32_t port = 0;
  size_t bytes = 0;  // of the line; what is behind it is for the guest
};
enum class NoConnectLine : uint8_t {
  kUnfinished,  // more may make it one
  kMalformed,   // nothing does
};

// `text` is what has come so far. The word in either case, a port in decimal; blanks and tabs
// between, around and a carriage return before the newline don't matter.
[[nodiscard]] std::variant<ConnectLine, NoConnectLine> ParseConnectLine(std::string_view text);

[[nodiscard]] std::string ConnectAnswer(uint32_t host_port);

}  // namespace bothy::sockets
