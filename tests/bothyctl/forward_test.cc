// `bothyctl forward`: clients of a listener of the host, and a port of a guest that the test plays.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <csignal>
#include <filesystem>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "support/testing/test_folder.h"
#include "tests/bothyctl/child.h"
#include "tests/bothyctl/fake_guest_ports.h"

namespace bothy::bothyctl {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kLine[] = "CONNECT 22\n";
constexpr char kAccepted[] = "OK 1073741824\n";

class ForwardTest : public ::testing::Test {
 protected:
  // Forwards `listen` to port 22.
  [[nodiscard]] std::vector<std::string> Words(const std::string& listen) const {
    return {BOTHYCTL, "forward", "--vsock", path_, listen + ":22"};
  }
  // Where it says that it listens.
  static uint16_t AwaitPort(Child& child) {
    child.AwaitOutput("listening on 127.0.0.1:");
    child.AwaitOutput("\n");
    const std::string& output = child.output();
    return static_cast<uint16_t>(std::stoi(output.substr(output.rfind(':') + 1)));
  }
  // What becomes of a client that says "<name>\n" behind the acceptance: an echo of it.
  static void Talk(const UniqueFd& client, const UniqueFd& guest, const std::string& text) {
    Say(client, text);
    EXPECT_EQ(Hear(guest, text.size()), text);
    Say(guest, "echo " + text);
    EXPECT_EQ(Hear(client, text.size() + 5), "echo " + text);
  }

  const TestFolder folder_;
  const std::string path_ = folder_ / "vsock";
};

TEST_F(ForwardTest, EachClientHasAConnectionOfItsOwn) {
  FakeGuestPorts ports(path_);
  Child child(Words("0"));
  const uint16_t port = AwaitPort(child);
  std::vector<UniqueFd> clients;
  std::vector<UniqueFd> guests;
  for (int i = 0; i < 5; ++i) {
    clients.push_back(ConnectTcp(port));
    guests.push_back(ports.Accept(kLine));
    Say(guests.back(), kAccepted);
  }
  for (size_t i = clients.size(); i-- > 0;) Talk(clients[i], guests[i], absl::StrCat("I am ", i));
  // A client that says no more still listens; the end of one is nobody else's.
  ::shutdown(clients[2].get(), SHUT_WR);
  EXPECT_EQ(HearEnd(guests[2]), "");
  Say(guests[2], "bye");
  guests[2].Reset();
  EXPECT_EQ(HearEnd(clients[2]), "bye");
  Talk(clients[3], guests[3], "and I");
  child.Signal(SIGTERM);
  EXPECT_EQ(child.AwaitEnd(), 128 + SIGTERM);
  EXPECT_EQ(HearEnd(clients[3]), "");
  EXPECT_EQ(child.error_output(), "");
}

TEST_F(ForwardTest, AUnixSocketIsGoneWithIt) {
  FakeGuestPorts ports(path_);
  const std::string listen = folder_ / "listen";
  Child child(Words(listen), {.terminal = true});
  child.AwaitOutput("listening on " + listen);
  const auto client = ConnectUnix(listen, ConnectMode::kBlocking);
  ASSERT_TRUE(client.ok()) << client.status();
  const UniqueFd guest = ports.Accept(kLine);
  Say(guest, kAccepted);
  Talk(*client, guest, "hello");
  child.Type("\x03");
  EXPECT_EQ(child.AwaitEnd(), 128 + SIGINT);
  EXPECT_FALSE(std::filesystem::exists(listen));
  EXPECT_EQ(HearEnd(guest), "");
}

TEST_F(ForwardTest, ARefusalEndsThatClientAlone) {
  FakeGuestPorts ports(path_);
  Child child(Words("127.0.0.1:0"));
  const uint16_t port = AwaitPort(child);
  const UniqueFd refused = ConnectTcp(port);
  (void)ports.Accept(kLine);
  EXPECT_EQ(HearEnd(refused), "");
  const UniqueFd client = ConnectTcp(port);
  const UniqueFd guest = ports.Accept(kLine);
  Say(guest, kAccepted);
  Talk(client, guest, "hello");
  child.Signal(SIGINT);
  EXPECT_EQ(child.AwaitEnd(), 128 + SIGINT);
  EXPECT_EQ(child.error_output(),
            "bothyctl: forward: Unavailable: the guest doesn't accept connections to port 22\n");
}

TEST_F(ForwardTest, AVmThatIsGoneAndComesBackIsFoundAgain) {
  Child child(Words("0"));
  const uint16_t port = AwaitPort(child);
  EXPECT_EQ(HearEnd(ConnectTcp(port)), "");
  FakeGuestPorts ports(path_);
  const UniqueFd client = ConnectTcp(port);
  const UniqueFd guest = ports.Accept(kLine);
  Say(guest, kAccepted);
  Talk(client, guest, "hello");
  child.Signal(SIGINT);
  EXPECT_EQ(child.AwaitEnd(), 128 + SIGINT);
  EXPECT_THAT(child.error_output(), StartsWith("bothyctl: forward: NotFound: "));
}

TEST_F(ForwardTest, ClientsBeyondItsDescriptorsWait) {
  FakeGuestPorts ports(path_);
  // Room for two.
  std::vector<std::string> words = {"/bin/sh", "-c", "ulimit -n 20; exec \"$@\"", "sh"};
  const std::vector<std::string> forward = Words("0");
  words.insert(words.end(), forward.begin(), forward.end());
  Child child(words);
  const uint16_t port = AwaitPort(child);
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 4; ++i) clients.push_back(ConnectTcp(port));
  // Those that are served reach the guest in any order; the others take the place of one that has
  // ended.
  for (size_t i = 0; i < clients.size(); ++i) {
    const UniqueFd guest = ports.Accept(kLine);
    Say(guest, kAccepted);
    Say(guest, "hello");
  }
  for (const UniqueFd& client : clients) EXPECT_EQ(Hear(client, 5), "hello");
  child.Signal(SIGINT);
  EXPECT_EQ(child.AwaitEnd(), 128 + SIGINT);
  EXPECT_EQ(child.error_output(), "");
}

TEST_F(ForwardTest, APlaceThatIsTakenIsToldOf) {
  Child first(Words("0"));
  const uint16_t port = AwaitPort(first);
  Child second(Words(absl::StrCat(port)));
  EXPECT_EQ(second.AwaitEnd(), 1);
  EXPECT_EQ(second.output(), "");
  EXPECT_EQ(second.error_output(),
            absl::StrCat("bothyctl: forward: AlreadyExists: listen on 127.0.0.1:", port,
                         ": somebody else listens there\n"));
  const std::string listen = folder_ / "listen";
  Child third(Words(listen));
  third.AwaitOutput("listening on ");
  Child fourth(Words(listen));
  EXPECT_EQ(fourth.AwaitEnd(), 1);
  EXPECT_THAT(fourth.error_output(), StartsWith("bothyctl: forward: AlreadyExists: "));
  const std::string file = folder_.WriteText("file", "precious");
  Child fifth(Words(file));
  EXPECT_EQ(fifth.AwaitEnd(), 1);
  EXPECT_THAT(fifth.error_output(), StartsWith("bothyctl: forward: AlreadyExists: "));
  EXPECT_THAT(fifth.error_output(), HasSubstr(file));
  EXPECT_EQ(std::filesystem::file_size(file), 8U);
}

TEST_F(ForwardTest, ScriptsAreToldAsJson) {
  std::vector<std::string> words = Words("0");
  words.emplace_back("--json");
  Child child(words);
  child.AwaitOutput("{\"listening\": \"127.0.0.1:");
  child.AwaitOutput("\"}\n");
  child.Signal(SIGHUP);
  EXPECT_EQ(child.AwaitEnd(), 128 + SIGHUP);
}

TEST_F(ForwardTest, MisuseExitsWith2) {
  for (const char* const listen : {"", "x", "1.2.3:80", "65536", "localhost:80", "-1"}) {
    Child child(Words(listen));
    EXPECT_EQ(child.AwaitEnd(), 2) << listen;
  }
}

}  // namespace
}  // namespace bothy::bothyctl
