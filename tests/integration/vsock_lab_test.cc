// Sockets between a stock guest and programs of the host.
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "support/check.h"
#include "support/unix_socket.h"
#include "tests/integration/guest_ports.h"
#include "tests/integration/lab_test.h"
#include "tests/integration/process_figures.h"
#include "tests/integration/shim_client.h"

namespace bothy::integration {
namespace {

using testing::HasSubstr;

constexpr char kReady[] = "listening";

// Gives everybody who connects back what they say, on a thread of its own.
class EchoListener {
 public:
  explicit EchoListener(const std::string& path) {
    auto listener = UnixListener::Create(path, 4096);
    CHECK_OK(listener.status());
    listener_ = *std::move(listener);
    socket_ = listener_.TakeSocket();
    int ends[2];
    CHECK(::pipe2(ends, O_CLOEXEC) == 0);
    stop_.Reset(ends[0]);
    stop_end_.Reset(ends[1]);
    thread_ = std::thread([this] { Serve(); });
  }
  ~EchoListener() {
    stop_end_.Reset();
    thread_.join();
  }

 private:
  void Serve() {
    std::vector<pollfd> watched = {{.fd = stop_.get(), .events = POLLIN, .revents = 0},
                                   {.fd = socket_.get(), .events = POLLIN, .revents = 0}};
    std::vector<char> bytes(65536);
    while (::poll(watched.data(), watched.size(), -1) > 0 && watched[0].revents == 0) {
      for (size_t i = watched.size() - 1; i > 1; --i) {
        if (watched[i].revents == 0) continue;
        const ssize_t got = ::recv(watched[i].fd, bytes.data(), bytes.size(), 0);
        if (got > 0 &&
            ::send(watched[i].fd, bytes.data(), static_cast<size_t>(got), MSG_NOSIGNAL) == got) {
          continue;
        }
        ::close(watched[i].fd);
        watched.erase(watched.begin() + static_cast<ptrdiff_t>(i));
      }
      if (watched[1].revents == 0) continue;
      const int client = ::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (client >= 0) watched.push_back({.fd = client, .events = POLLIN, .revents = 0});
    }
    for (size_t i = 2; i < watched.size(); ++i) ::close(watched[i].fd);
  }

  UnixListener listener_;
  UniqueFd socket_;
  UniqueFd stop_;
  UniqueFd stop_end_;
  std::thread thread_;
};

class VsockLabTest : public LabTest {
 protected:
  VsockLabTest() {
    rlimit files{};
    CHECK(::getrlimit(RLIMIT_NOFILE, &files) == 0);
    files.rlim_cur = files.rlim_max;
    CHECK(::setrlimit(RLIMIT_NOFILE, &files) == 0);
  }
  // A guest of one processor (docs/lab.md says why).
  [[nodiscard]] wire::CreateVMRequest VsockGuest() const {
    wire::CreateVMRequest request = Guest(256, 1);
    request.mutable_config()->mutable_hvsocket_config()->set_path(VsockPath());
    return request;
  }
  [[nodiscard]] std::string VsockPath() const { return folder_ / "vsock"; }
  void BootVsockGuest(const wire::CreateVMRequest& request) {
    ASSERT_NO_FATAL_FAILURE(BootWithAgent(request));
    (void)Run(kAwaitVsockDriver);
  }
  absl::Status Socket(wire::ModifyType type, uint32_t port, const std::string& path) {
    wire::VMSocketRequest request;
    request.set_type(type);
    request.mutable_vsock_listen()->set_port(port);
    request.mutable_vsock_listen()->set_listener_path(path);
    return vm_->stub().VMSocket(request).status();
  }
  // What a program in the guest prints that must succeed.
  std::string Run(const std::string& command) {
    const auto result = agent_->Run(command, absl::Seconds(Soaks() ? 3000 : 200));
    EXPECT_TRUE(result.ok()) << command << ": " << result.status();
    if (!result.ok()) return "";
    EXPECT_EQ(result->status, 0) << command << ": " << result->output << result->error_output;
    return result->output;
  }
  void StartEcho(int port) {
    const auto id = agent_->Start(absl::StrCat("vsock-echo ", port));
    ASSERT_TRUE(id.ok()) << id.status();
    ASSERT_THAT(agent_->AwaitOutput(*id, kReady, kAnswer), IsOk());
  }
  // A program of the host that has asked for `port` of the guest.
  UniqueFd Ask(uint32_t port) { return AskForPort(VsockPath(), port); }
  UniqueFd Connect(uint32_t port) { return ConnectToPort(VsockPath(), port); }
  double Number(const std::string& query) {
    wire::InspectVMRequest request;
    request.set_query(query);
    const auto answer = vm_->stub().InspectVM(request);
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() ? answer->result().number_value() : -1;
  }
  // The path of the guest's only connection to a port of the host.
  std::string ConnectionTo(uint32_t host_port) {
    wire::InspectVMRequest request;
    request.set_query("devices/vsock0/sockets/connections");
    const auto answer = vm_->stub().InspectVM(request);
    EXPECT_TRUE(answer.ok()) << answer.status();
    if (!answer.ok()) return "";
    for (const auto& [name, connection] : answer->result().struct_value().fields()) {
      if (name.ends_with(absl::StrCat("-", host_port))) return request.query() + "/" + name;
    }
    ADD_FAILURE() << "no connection to port " << host_port;
    return "";
  }
  // Until the device has forgotten all connections.
  void AwaitNoConnections() {
    while (Number("devices/vsock0/sockets/connections_open") != 0 && !HasFailure()) {
    }
    EXPECT_EQ(Number("devices/vsock0/sockets/connections_lingering"), 0);
  }
};

std::string Encoded(const std::string& command) {
  std::string out;
  for (const char c : command) {
    absl::StrAppend(&out, "%", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
  }
  return out;
}

// containerd's shim in its order, with its ttrpc package. A connection that fails ends the guest,
// which ends the shim's client.
TEST_F(VsockLabTest, AShimTalksToItsGuest) {
  const std::string echo =
      std::string(kAwaitVsockDriver) +
      "; mkfifo /tmp/1 /tmp/109 /tmp/0x40000000 /tmp/2000;"
      "talk() { vsock-connect $1 <>/tmp/$1 >&0 || { echo no connection to port $1; kill $$; }; };"
      "talk 109 & talk 0x40000000 & talk 1; talk 2000";
  const ProgramResult shim =
      RunShimClient({.socket_path = SocketPath(),
                     .kernel = Kernel(),
                     .initrd = BOTHY_GUEST_DIR "/initrd.img",
                     .command_line = "quiet panic=-1 bothy.run=" + Encoded(echo),
                     .memory_mb = 256,
                     .how = "sockets"});
  EXPECT_EQ(shim.status, 0) << shim.output << shim.error_output;
  EXPECT_THAT(shim.output, HasSubstr("talked on port 1\ntalked on port 109\n"
                                     "talked on port 1073741824\nlistening for port 2000\n"
                                     "ended port 1\ntalked on port 2000\ntorn down\nclosed\n"));
}

TEST_F(VsockLabTest, AThousandConnectionsAtOnceBothWays) {
  ASSERT_NO_FATAL_FAILURE(BootVsockGuest(VsockGuest()));
  const EchoListener echo(folder_ / "echo");
  ASSERT_THAT(Socket(wire::ADD, 7000, folder_ / "echo"), IsOk());
  EXPECT_EQ(Run("vsock-many 7000 1023"), "1023 of 1023\n");
  ASSERT_NO_FATAL_FAILURE(StartEcho(8000));
  std::vector<UniqueFd> sockets;
  for (int i = 0; i < 1023; ++i) sockets.push_back(Ask(8000));
  for (const UniqueFd& socket : sockets) EXPECT_THAT(Line(socket), HasSubstr("OK "));
  for (size_t i = 0; i < sockets.size(); ++i) Say(sockets[i], absl::StrCat("this is ", i, "\n"));
  for (size_t i = 0; i < sockets.size(); ++i) {
    EXPECT_EQ(Line(sockets[i]), absl::StrCat("this is ", i, "\n"));
  }
  sockets.clear();
  AwaitNoConnections();
}

TEST_F(VsockLabTest, DataGoesBothWaysAtOnceUnharmed) {
  ASSERT_NO_FATAL_FAILURE(BootVsockGuest(VsockGuest()));
  ASSERT_NO_FATAL_FAILURE(StartEcho(8000));
  const UniqueFd socket = Connect(8000);
  const uint64_t total = uint64_t{Soaks() ? 1024U : 32U} << 20;
  // Words that say where they belong.
  constexpr size_t kPiece = 1 << 16;
  std::thread speaker([&socket, total] {
    std::vector<uint64_t> words(kPiece / 8);
    for (uint64_t at = 0; at < total; at += kPiece) {
      for (size_t i = 0; i < words.size(); ++i) words[i] = (at / 8 + i) * 0x9E3779B97F4A7C15;
      if (::send(socket.get(), words.data(), kPiece, MSG_NOSIGNAL) !=
          static_cast<ssize_t>(kPiece)) {
        return;
      }
    }
    ::shutdown(socket.get(), SHUT_WR);
  });
  std::vector<uint64_t> words(kPiece / 8);
  uint64_t right = 0;
  for (uint64_t at = 0; at < total; at += kPiece) {
    if (::recv(socket.get(), words.data(), kPiece, MSG_WAITALL) != static_cast<ssize_t>(kPiece)) {
      break;
    }
    for (size_t i = 0; i < words.size(); ++i) {
      if (words[i] == (at / 8 + i) * 0x9E3779B97F4A7C15) ++right;
    }
  }
  EXPECT_EQ(right, total / 8);
  EXPECT_EQ(Line(socket), "");
  speaker.join();
  AwaitNoConnections();
}

TEST_F(VsockLabTest, PeersThatLeaveEarlyHarmNobody) {
  ASSERT_NO_FATAL_FAILURE(BootVsockGuest(VsockGuest()));
  ASSERT_NO_FATAL_FAILURE(StartEcho(8000));
  for (int i = 0; i < 50; ++i) {
    auto silent = ConnectUnix(VsockPath(), ConnectMode::kBlocking);  // before the newline
    ASSERT_TRUE(silent.ok());
    Say(*silent, "CONNECT 80");
    (void)Ask(8000);  // during the answer
    (void)Ask(9999);  // of nobody
    const UniqueFd half = Connect(8000);
    ::shutdown(half.get(), SHUT_WR);  // half-closed
    EXPECT_EQ(Line(half), "");
    const UniqueFd unread = Connect(8000);  // with its data unread
    Say(unread, std::string(10'000, 'x'));
  }
  EXPECT_EQ(Line(Ask(9999)), "");
  const UniqueFd last = Connect(8000);
  Say(last, "still there\n");
  EXPECT_EQ(Line(last), "still there\n");
}

TEST_F(VsockLabTest, ListenersComeGoAndChange) {
  ASSERT_NO_FATAL_FAILURE(BootVsockGuest(VsockGuest()));
  const std::string ask = "(echo hello) | vsock-connect ";
  const std::string refused = "! vsock-connect 7000 </dev/null";
  (void)Run(refused);
  ASSERT_THAT(Socket(wire::ADD, 7000, folder_ / "a"), IsOk());
  EXPECT_THAT(Socket(wire::ADD, 7000, folder_ / "b"),
              Fails(absl::StatusCode::kAlreadyExists, HasSubstr("vsock_listen.port: ")));
  (void)Run(refused);
  for (int round = 0; round < 2; ++round) {
    const EchoListener echo(folder_ / "a");
    EXPECT_EQ(Run(ask + "7000"), "hello\n");
  }
  (void)Run(refused);
  const EchoListener other(folder_ / "b");
  ASSERT_THAT(Socket(wire::UPDATE, 7000, folder_ / "b"), IsOk());
  EXPECT_EQ(Run(ask + "7000"), "hello\n");
  ASSERT_THAT(Socket(wire::REMOVE, 7000, ""), IsOk());
  (void)Run(refused);
  EXPECT_THAT(Socket(wire::REMOVE, 7000, ""),
              Fails(absl::StatusCode::kNotFound, HasSubstr("vsock_listen.port: ")));
  // By convention, without VMSocket.
  const EchoListener hybrid(folder_ / "vsock_7001");
  EXPECT_EQ(Run(ask + "7001"), "hello\n");
}

// A peer that reads nothing for a while stalls its own connection and nothing else: neither the
// device nor its thread does anything for it, and what is kept stays within the window.
TEST_F(VsockLabTest, SlowReadersStallThemselvesAlone) {
  constexpr double kWindow = 256 * 1024;
  constexpr size_t kBytes = 4 << 20;
  ASSERT_NO_FATAL_FAILURE(BootVsockGuest(VsockGuest()));
  ASSERT_NO_FATAL_FAILURE(StartEcho(8000));
  // A program of the host that the guest sends to, and that doesn't read.
  auto listener = UnixListener::Create(folder_ / "slow");
  ASSERT_TRUE(listener.ok()) << listener.status();
  const UniqueFd listening = listener->TakeSocket();
  ASSERT_TRUE(::fcntl(listening.get(), F_SETFL, 0) == 0);
  ASSERT_THAT(Socket(wire::ADD, 7000, folder_ / "slow"), IsOk());
  const auto sender = agent_->Start(
      absl::StrCat("head -c ", kBytes, " /dev/zero | tr '\\0' x | vsock-connect 7000"));
  ASSERT_TRUE(sender.ok()) << sender.status();
  const UniqueFd slow(::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(slow.valid());
  // And one of the guest that the host sends to, and that doesn't read.
  auto talker = UnixListener::Create(folder_ / "talker");
  ASSERT_TRUE(talker.ok()) << talker.status();
  const UniqueFd talking = talker->TakeSocket();
  ASSERT_TRUE(::fcntl(talking.get(), F_SETFL, 0) == 0);
  ASSERT_THAT(Socket(wire::ADD, 7001, folder_ / "talker"), IsOk());
  const auto reader =
      agent_->Start(absl::StrCat("mkfifo /tmp/go; vsock-connect 7001 </dev/null | "
                                 "(read line </tmp/go; echo $(head -c ",
                                 kBytes, " | tr -d x | wc -c) wrong bytes)"));
  ASSERT_TRUE(reader.ok()) << reader.status();
  const UniqueFd unheard(::accept4(talking.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(unheard.valid());
  std::thread speaker([&unheard] { Say(unheard, std::string(kBytes, 'x')); });

  // Until both have stalled. What the host's socket took since the guest last heard of it isn't
  // kept any more; a fourth of the window would be told.
  const std::string sending = ConnectionTo(7000);
  const std::string reading = ConnectionTo(7001);
  while ((Number(sending + "/kept_bytes") <= kWindow / 4 * 3 ||
          Number(reading + "/credit_bytes") != 0) &&
         !HasFailure()) {
  }
  // Meanwhile others are served.
  const UniqueFd lively = Connect(8000);
  for (int i = 0; i < 100; ++i) {
    Say(lively, "hello\n");
    EXPECT_EQ(Line(lively), "hello\n");
  }
  EXPECT_LE(Number(sending + "/kept_bytes"), kWindow);
  EXPECT_EQ(Number(reading + "/kept_bytes"), 0);
  // And then it is quiet. The time is only that in which something could show.
  double rounds = 0;
  while (rounds != Number("devices/vsock0/sockets/rounds")) {
    rounds = Number("devices/vsock0/sockets/rounds");
    (void)Run("true");  // all that the guest has begun is done by then
  }
  const uint64_t switches = ThreadSwitches(server_->pid(), "io-vsock0");
  absl::SleepFor(Soaks() ? absl::Minutes(1) : absl::Seconds(1));
  // It has slept since it answered the last question, or nearly so.
  EXPECT_LE(ThreadSwitches(server_->pid(), "io-vsock0"), switches + 2);
  EXPECT_EQ(Number("devices/vsock0/sockets/rounds"), rounds);

  // They read at last: everything arrives.
  std::vector<char> heard(kBytes);
  EXPECT_EQ(::recv(slow.get(), heard.data(), heard.size(), MSG_WAITALL),
            static_cast<ssize_t>(kBytes));
  EXPECT_EQ(std::count(heard.begin(), heard.end(), 'x'), static_cast<ptrdiff_t>(kBytes));
  EXPECT_EQ(Line(slow), "");
  (void)Run("echo go >/tmp/go");
  speaker.join();
  ::shutdown(unheard.get(), SHUT_WR);
  const auto read = agent_->Finish(*reader, kAnswer);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->output, "0 wrong bytes\n") << read->error_output;
}

TEST_F(VsockLabTest, APauseAndAResetUnderLoad) {
  wire::CreateVMRequest request = VsockGuest();
  request.mutable_config()->mutable_guest_power_actions()->set_reset(wire::VMConfig::RESTART);
  ASSERT_NO_FATAL_FAILURE(BootVsockGuest(request));
  ASSERT_NO_FATAL_FAILURE(StartEcho(8000));
  {
    const UniqueFd socket = Connect(8000);
    for (int i = 0; i < 5; ++i) {
      std::thread speaker([&socket] { Say(socket, std::string(1 << 20, 'x') + "\n"); });
      EXPECT_THAT(vm_->Pause(), IsOk());
      EXPECT_THAT(vm_->Resume(), IsOk());
      EXPECT_EQ(Line(socket).size(), (1U << 20) + 1);
      speaker.join();
    }
  }
  const UniqueFd socket = Connect(8000);
  ASSERT_THAT(agent_->End("reset", kAnswer), IsOk());
  EXPECT_EQ(Line(socket), "");  // the end
  ASSERT_THAT(agent_->WaitReady(kBoot), IsOk());
  (void)Run(kAwaitVsockDriver);
  ASSERT_NO_FATAL_FAILURE(StartEcho(8000));
  const UniqueFd again = Connect(8000);
  Say(again, "after the reset\n");
  EXPECT_EQ(Line(again), "after the reset\n");
}

}  // namespace
}  // namespace bothy::integration
