#include "tests/integration/guest_ports.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "support/check.h"
#include "support/unix_socket.h"

namespace bothy::integration {

UniqueFd AskForPort(const std::string& path, uint32_t port) {
  auto socket = ConnectUnix(path, ConnectMode::kBlocking);
  CHECK_OK(socket.status());
  Say(*socket, absl::StrCat("CONNECT ", port, "\n"));
  return *std::move(socket);
}

UniqueFd ConnectToPort(const std::string& path, uint32_t port) {
  UniqueFd socket = AskForPort(path, port);
  EXPECT_THAT(Line(socket), testing::MatchesRegex("OK [0-9]+\n"));
  return socket;
}

void Say(const UniqueFd& socket, const std::string& text) {
  EXPECT_EQ(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(text.size()));
}

std::string Line(const UniqueFd& socket) {
  std::string line;
  char byte = 0;
  while (!line.ends_with('\n') && ::recv(socket.get(), &byte, 1, 0) == 1) line.push_back(byte);
  return line;
}

}  // namespace bothy::integration
