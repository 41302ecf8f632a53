#include "sockets/connect_line.h"

#include <gtest/gtest.h>

namespace bothy::sockets {
namespace {

void ExpectPort(std::string_view text, uint32_t port, size_t bytes) {
  const auto parsed = ParseConnectLine(text);
  const auto* const line = std::get_if<ConnectLine>(&parsed);
  ASSERT_NE(line, nullptr) << text;
  EXPECT_EQ(line->port, port) << text;
  EXPECT_EQ(line->bytes, bytes) << text;
}
void ExpectNone(std::string_view text, NoConnectLine why) {
  const auto parsed = ParseConnectLine(text);
  const auto* const none = std::get_if<NoConnectLine>(&parsed);
  ASSERT_NE(none, nullptr) << text;
  EXPECT_EQ(*none, why) << text;
}

TEST(ConnectLineTest, TakesWhatClientsSend) {
  ExpectPort("CONNECT 52\n", 52, 11);
  ExpectPort("CONNECT 0\n", 0, 10);
  ExpectPort("CONNECT 4294967295\n", 4294967295, 19);
  ExpectPort("connect 52\r\n", 52, 12);
  ExpectPort("  Connect \t 7 \n", 7, 15);
}

TEST(ConnectLineTest, LeavesWhatIsBehindTheNewline) {
  ExpectPort("CONNECT 22\nSSH-2.0-x\n", 22, 11);
  ExpectPort("CONNECT 22\nCONNECT 23\nCONNECT 24\nCONNECT 25\n", 22, 11);
}

TEST(ConnectLineTest, WaitsForTheNewline) {
  for (const char* text : {"", "C", "CONN", "CONNECT", "CONNECT 5", "connect 52\r"}) {
    ExpectNone(text, NoConnectLine::kUnfinished);
  }
}

TEST(ConnectLineTest, RefusesEverythingElse) {
  for (const char* text :
       {"\n", "CONNECT\n", "CONNECT \n", "CONNECT52\n", "CONNECT x\n", "CONNECT -1\n",
        "CONNECT +1\n", "CONNECT 0x10\n", "CONNECT 4294967296\n", "CONNECT 1 2\n", "CONNECT 1x\n",
        "GET / HTTP/1.1\r\n", "GET", "CONNECT 00000000000000000000000052\n"}) {
    ExpectNone(text, NoConnectLine::kMalformed);
  }
}

TEST(ConnectLineTest, AnswersWithTheHostsPort) {
  EXPECT_EQ(ConnectAnswer(1073741824), "OK 1073741824\n");
}

}  // namespace
}  // namespace bothy::sockets
