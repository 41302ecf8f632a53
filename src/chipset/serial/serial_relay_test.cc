#include "chipset/serial/serial_relay.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "chipset/serial/uart16550.h"
#include "chipset/testing/fakes.h"
#include "chipset/testing/sockets.h"
#include "support/testing/test_folder.h"

namespace bothy::chipset {
namespace {

using absl::StatusCode;

// A port that takes what the test has allowed.
class FakePort : public SerialInput {
 public:
  explicit FakePort(SerialBackend& backend) : backend_(backend) { backend_.Attach(this); }
  ~FakePort() override { backend_.Attach(nullptr); }

  size_t Receive(std::span<const uint8_t> bytes) override {
    std::lock_guard lock(mutex_);
    const size_t taken = std::min(bytes.size(), room_);
    received_.append(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(taken));
    room_ -= taken;
    backend_waits_ = taken < bytes.size();
    changed_.notify_all();
    return taken;
  }
  void Allow(size_t bytes) {
    bool tell;
    {
      std::lock_guard lock(mutex_);
      room_ += bytes;
      tell = std::exchange(backend_waits_, false);
    }
    if (tell) backend_.OnReceiveRoom();
  }
  // What has been received once there are `size` bytes of it.
  std::string WaitFor(size_t size) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(
        changed_.wait_for(lock, std::chrono::minutes(1), [&] { return received_.size() >= size; }));
    return received_;
  }
  // Returns when the relay has offered more than there was room for.
  void WaitUntilFull() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::minutes(1), [&] { return backend_waits_; }));
  }

 private:
  SerialBackend& backend_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string received_;
  size_t room_ = 0;
  bool backend_waits_ = false;
};

// `size` bytes that differ from their neighbours at any distance that matters.
std::string Pattern(size_t size, size_t start = 0) {
  std::string text;
  text.reserve(size + 16);
  for (size_t line = start / 10; text.size() < size + start % 10; ++line) {
    absl::StrAppend(&text, absl::Dec(line, absl::kZeroPad9), "\n");
  }
  return text.substr(start % 10, size);
}

class SerialRelayTest : public ::testing::Test {
 protected:
  std::unique_ptr<SerialRelay> NewRelay(bool connect_only = false) {
    absl::StatusOr<std::unique_ptr<SerialRelay>> relay =
        SerialRelay::Create(thread_.loop(), {.name = "com1",
                                             .socket_path = path_,
                                             .connect_only = connect_only,
                                             .retry_delay = std::chrono::milliseconds(1)});
    EXPECT_TRUE(relay.ok()) << relay.status();
    return relay.ok() ? std::move(relay).value() : nullptr;
  }
  StatusCode CreationFailure(bool connect_only) {
    return SerialRelay::Create(thread_.loop(),
                               {.name = "com1", .socket_path = path_, .connect_only = connect_only})
        .status()
        .code();
  }
  static void Print(SerialRelay& relay, const std::string& text) {
    relay.Transmit({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  }
  // Until the loop has done what has been asked of it.
  void Settle() {
    thread_.loop().PostAndWait([] {});
  }
  static void WaitFor(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      std::this_thread::yield();
    }
  }

  TestFolder folder_;
  std::string path_ = folder_ / "com1";
  LoopThread thread_{"control"};
};

TEST_F(SerialRelayTest, RelaysBothWays) {
  auto relay = NewRelay();
  FakePort port(*relay);
  port.Allow(100);
  Peer client = Peer::Connect(path_);
  Print(*relay, "login: ");
  EXPECT_EQ(client.Read(7), "login: ");
  client.Send("root\n");
  EXPECT_EQ(port.WaitFor(5), "root\n");
  Print(*relay, "# ");
  EXPECT_EQ(client.Read(2), "# ");
  const SerialRelayStatus status = relay->Status();
  EXPECT_TRUE(status.listening);
  EXPECT_TRUE(status.connected);
  EXPECT_EQ(status.connections, 1u);
  EXPECT_EQ(status.bytes_from_guest, 9u);
  EXPECT_EQ(status.bytes_lost, 0u);
}

TEST_F(SerialRelayTest, AClientGetsWhatTheGuestPrintedBefore) {
  auto relay = NewRelay();
  EXPECT_EQ(relay->Status().first_output_host_ns, 0u);
  Print(*relay, "early ");
  EXPECT_NE(relay->Status().first_output_host_ns, 0u);
  Print(*relay, "boot\n");
  Peer client = Peer::Connect(path_);
  EXPECT_EQ(client.Read(11), "early boot\n");
}

TEST_F(SerialRelayTest, TheReplayIsTheLast64KiB) {
  auto relay = NewRelay();
  const std::string text = Pattern(1'000'000);
  Print(*relay, text);
  Peer client = Peer::Connect(path_);
  EXPECT_EQ(client.Read(65536), text.substr(text.size() - 65536));
  EXPECT_EQ(relay->Status().bytes_lost, 0u);
}

TEST_F(SerialRelayTest, ReplayAndLiveOutputJoinWithoutGapOrRepetition) {
  auto relay = NewRelay();
  constexpr size_t kSize = 150'000;  // within the backlog
  std::thread guest([&] {
    const std::string text = Pattern(kSize);
    for (size_t i = 0; i < kSize; i += 10) Print(*relay, text.substr(i, 10));
  });
  for (int visit = 0; visit < 20; ++visit) {
    Peer client = Peer::Connect(path_);
    // From where it begins on every byte is the next one of the pattern.
    const std::string bytes = client.Read(50);
    if (bytes.size() < 50) break;
    const size_t newline = bytes.find('\n');
    const size_t start = std::stoul(bytes.substr(newline + 1, 9)) * 10 - newline - 1;
    EXPECT_EQ(bytes, Pattern(50, start));
    const std::string more = client.Read(1000);
    EXPECT_EQ(more, Pattern(1000, start + 50));
    if (start + 10'000 > kSize) break;
  }
  guest.join();
  Peer last = Peer::Connect(path_);
  EXPECT_EQ(last.Read(65536), Pattern(65536, kSize - 65536));
}

TEST_F(SerialRelayTest, ServesOneClientAtATime) {
  auto relay = NewRelay();
  Print(*relay, "a");
  Peer first = Peer::Connect(path_);
  EXPECT_EQ(first.Read(1), "a");
  Peer second = Peer::Connect(path_);
  Print(*relay, "b");
  EXPECT_EQ(first.Read(1), "b");
  Settle();
  EXPECT_FALSE(second.Readable());
  first.Close();
  EXPECT_EQ(second.Read(2), "ab");
  EXPECT_EQ(relay->Status().connections, 2u);
}

TEST_F(SerialRelayTest, AClientThatGoesAwayChangesNothing) {
  auto relay = NewRelay();
  std::string all;
  for (int round = 0; round < 50; ++round) {
    Peer client = Peer::Connect(path_);
    // Leaves with output under way, read or not.
    const std::string line = absl::StrCat("line ", round, "\n");
    all += line;
    Print(*relay, line);
    if (round % 2 == 0) client.Read(1);
  }
  Peer client = Peer::Connect(path_);
  EXPECT_EQ(client.Read(all.size()), all);
}

TEST_F(SerialRelayTest, ASlowClientLosesTheOldestAndNeverHoldsTheGuest) {
  auto relay = NewRelay();
  Peer client = Peer::Connect(path_);
  Print(*relay, "x");
  ASSERT_EQ(client.Read(1), "x");
  // More than the socket and the ring hold, while nobody reads.
  const std::string text = Pattern(4'000'000);
  for (size_t i = 0; i < text.size(); i += 1000) Print(*relay, text.substr(i, 1000));
  Settle();
  std::string got;
  const std::string end = text.substr(text.size() - 1000);
  while (got.size() < end.size() || got.compare(got.size() - end.size(), end.size(), end) != 0) {
    const std::string piece = client.ReadSome();
    ASSERT_FALSE(piece.empty());
    got += piece;
  }
  EXPECT_GT(relay->Status().bytes_lost, 0u);
  EXPECT_EQ(relay->Status().bytes_lost + got.size(), text.size());
  // The backlog as it was in the end has no hole.
  ASSERT_GE(got.size(), SerialRelay::kBacklogBytes);
  EXPECT_TRUE(text.ends_with(got.substr(got.size() - SerialRelay::kBacklogBytes)));
}

TEST_F(SerialRelayTest, InputWaitsForTheGuestAndNothingIsLost) {
  auto relay = NewRelay();
  FakePort port(*relay);
  const std::string text = Pattern(1'000'000);
  Peer client = Peer::Connect(path_);
  std::thread sender([&] { client.Send(text); });
  port.WaitUntilFull();
  size_t allowed = 0;
  while (allowed < text.size()) {
    const size_t room = 1 + allowed % 9973;
    port.Allow(room);
    allowed += room;
    port.WaitFor(std::min(allowed, text.size()));
  }
  sender.join();
  EXPECT_EQ(port.WaitFor(text.size()), text);
  WaitFor([&] { return relay->Status().bytes_to_guest == text.size(); });
}

TEST_F(SerialRelayTest, AFloodStopsAtThePeersSocketWhileTheGuestDoesNotRead) {
  auto relay = NewRelay();
  FakePort port(*relay);
  Peer client = Peer::Connect(path_);
  const std::string piece(4096, 'x');
  size_t sent = 0;
  port.Allow(10);
  while (sent < 100'000'000) {
    const ssize_t n = ::send(client.fd(), piece.data(), piece.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) {
      ASSERT_EQ(errno, EAGAIN);
      // Full now; is it still once the loop has had its turns?
      Settle();
      port.WaitUntilFull();
      if (::send(client.fd(), piece.data(), 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) break;
      ++sent;
      continue;
    }
    sent += static_cast<size_t>(n);
  }
  // The socket's buffers and one read.
  EXPECT_LT(sent, 10'000'000u);
  EXPECT_EQ(port.WaitFor(10).size(), 10u);
}

TEST_F(SerialRelayTest, WhatAClientSentBeforeItLeftArrives) {
  auto relay = NewRelay();
  FakePort port(*relay);
  const std::string text = Pattern(100'000);
  {
    Peer client = Peer::Connect(path_);
    client.Send(text);
  }
  // The next client is served although the guest hasn't read yet, and its input comes after.
  Peer next = Peer::Connect(path_);
  Print(*relay, "hello");
  EXPECT_EQ(next.Read(5), "hello");
  next.Send("next");
  port.Allow(1'000'000);
  EXPECT_EQ(port.WaitFor(text.size() + 4), text + "next");
}

TEST_F(SerialRelayTest, AClientThatOnlySendsNoMoreStillListens) {
  auto relay = NewRelay();
  FakePort port(*relay);
  port.Allow(100);
  Peer client = Peer::Connect(path_);
  client.Send("ls\n");
  ASSERT_EQ(::shutdown(client.fd(), SHUT_WR), 0);
  EXPECT_EQ(port.WaitFor(3), "ls\n");
  Print(*relay, "file");
  EXPECT_EQ(client.Read(4), "file");
  client.Close();
  Peer next = Peer::Connect(path_);
  EXPECT_EQ(next.Read(4), "file");
}

TEST_F(SerialRelayTest, OutOfBandDataEndsTheConnection) {
  auto relay = NewRelay();
  Peer client = Peer::Connect(path_);
  Print(*relay, "x");
  ASSERT_EQ(client.Read(1), "x");
  if (::send(client.fd(), "!", 1, MSG_OOB | MSG_NOSIGNAL) != 1) {
    GTEST_SKIP() << "this kernel has no out-of-band data on Unix sockets";
  }
  char byte;
  EXPECT_LE(::recv(client.fd(), &byte, 1, 0), 0);
  Peer next = Peer::Connect(path_);
  EXPECT_EQ(next.Read(1), "x");
}

TEST_F(SerialRelayTest, ConnectsWhereSomebodyListens) {
  for (const bool connect_only : {false, true}) {
    const UniqueFd listener = BindSocket(path_, /*listen=*/true);
    {
      auto relay = NewRelay(connect_only);
      FakePort port(*relay);
      port.Allow(100);
      Peer peer = Peer::Accept(listener);
      Print(*relay, "out");
      EXPECT_EQ(peer.Read(3), "out");
      peer.Send("in");
      EXPECT_EQ(port.WaitFor(2), "in");
      EXPECT_FALSE(relay->Status().listening);
    }
    Settle();
    // The path is its owner's.
    EXPECT_TRUE(Exists(path_));
    ::unlink(path_.c_str());
  }
}

TEST_F(SerialRelayTest, ConnectsAgainAndGoesOnWhereItWas) {
  UniqueFd listener = BindSocket(path_, /*listen=*/true);
  auto relay = NewRelay();
  Peer peer = Peer::Accept(listener);
  Print(*relay, "one ");
  EXPECT_EQ(peer.Read(4), "one ");
  // The peer's program ends, and starts anew a little later.
  listener.Reset();
  ::unlink(path_.c_str());
  peer.Close();
  WaitFor([&] { return !relay->Status().connected; });
  Print(*relay, "two ");
  EXPECT_FALSE(Exists(path_));
  listener = BindSocket(path_, /*listen=*/true);
  peer = Peer::Accept(listener);
  Print(*relay, "three");
  EXPECT_EQ(peer.Read(9), "two three");
}

TEST_F(SerialRelayTest, WaitsForABusyListener) {
  UniqueFd listener = BindSocket(path_, /*listen=*/false);
  ASSERT_EQ(::listen(listener.get(), 0), 0);
  const Peer occupant = Peer::Connect(path_);
  auto relay = NewRelay(/*connect_only=*/true);
  Print(*relay, "patient");
  Peer::Accept(listener).Close();
  Peer peer = Peer::Accept(listener);
  EXPECT_EQ(peer.Read(7), "patient");
}

TEST_F(SerialRelayTest, ConnectOnlyNeverListens) {
  EXPECT_EQ(CreationFailure(/*connect_only=*/true), StatusCode::kNotFound);
  EXPECT_FALSE(Exists(path_));
  BindSocket(path_, /*listen=*/true).Reset();
  EXPECT_EQ(CreationFailure(/*connect_only=*/true), StatusCode::kFailedPrecondition);
  EXPECT_EQ(folder_.Names().size(), 1u);
}

TEST_F(SerialRelayTest, FailuresLeaveNothingBehind) {
  const size_t descriptors = OpenDescriptors();
  WriteFile(path_, "precious");
  EXPECT_EQ(CreationFailure(/*connect_only=*/false), StatusCode::kAlreadyExists);
  EXPECT_EQ(std::filesystem::file_size(path_), 8u);
  EXPECT_EQ(folder_.Names().size(), 1u);
  path_ = folder_ / "missing/com1";
  EXPECT_EQ(CreationFailure(/*connect_only=*/false), StatusCode::kNotFound);
  path_ = "";
  EXPECT_EQ(CreationFailure(/*connect_only=*/false), StatusCode::kInvalidArgument);
  EXPECT_EQ(OpenDescriptors(), descriptors);
}

TEST_F(SerialRelayTest, CreatedAndDestroyedAgainLeavesNothing) {
  size_t descriptors = 0;
  for (int round = 0; round < 30; ++round) {
    auto relay = NewRelay();
    Print(*relay, "x");
    Peer client = Peer::Connect(path_);
    if (round % 3 == 0) client.Read(1);
    relay.reset();
    EXPECT_FALSE(Exists(path_));
    client.Close();
    Settle();
    if (round == 5) descriptors = OpenDescriptors();
  }
  EXPECT_EQ(OpenDescriptors(), descriptors);
  EXPECT_EQ(folder_.Names().size(), 0u);
}

TEST_F(SerialRelayTest, DestroyedOnItsLoopItIsGoneAtOnce) {
  auto relay = NewRelay();
  Peer client = Peer::Connect(path_);
  Print(*relay, "x");
  client.Read(1);
  size_t before = 0;
  size_t after = 0;
  thread_.loop().PostAndWait([&] {
    before = OpenDescriptors();
    relay.reset();
    after = OpenDescriptors();
  });
  // Listener, connection and the folder's descriptor.
  EXPECT_EQ(before - after, 3u);
}

TEST_F(SerialRelayTest, TheLastOutputReachesTheClient) {
  auto relay = NewRelay();
  Peer client = Peer::Connect(path_);
  Print(*relay, "boot ");
  ASSERT_EQ(client.Read(5), "boot ");
  // While the loop still waits to gather more output.
  Print(*relay, "Power down\n");
  relay.reset();
  EXPECT_EQ(client.ReadToEnd(), "Power down\n");
}

TEST_F(SerialRelayTest, TwoMachinesThatStartAtOnceFindEachOther) {
  for (int round = 0; round < 30; ++round) {
    // Half the time where an earlier one has died.
    if (round % 2 != 0) BindSocket(path_, /*listen=*/true).Reset();
    std::unique_ptr<SerialRelay> relays[2];
    std::thread other([&] { relays[1] = NewRelay(); });
    relays[0] = NewRelay();
    other.join();
    ASSERT_TRUE(relays[0] && relays[1]);
    FakePort port0(*relays[0]);
    FakePort port1(*relays[1]);
    port0.Allow(10);
    port1.Allow(10);
    Print(*relays[0], "from 0");
    Print(*relays[1], "from 1");
    EXPECT_EQ(port0.WaitFor(6), "from 1");
    EXPECT_EQ(port1.WaitFor(6), "from 0");
  }
}

TEST_F(SerialRelayTest, CarriesAWholePortUnderLoad) {
  auto relay = NewRelay();
  FakeIrq irq;
  Uart16550 uart({.name = "com1"}, irq.NewLine(), *relay);
  uart.Start();
  WriteIo<uint8_t>(uart, 2, 0x01);
  constexpr size_t kSize = 50'000;
  const std::string text = Pattern(kSize);
  Peer client = Peer::Connect(path_);
  std::thread sender([&] { client.Send(text); });
  // The guest echoes.
  std::thread guest([&] {
    for (size_t echoed = 0; echoed < kSize;) {
      if ((ReadIo<uint8_t>(uart, 5) & 1) == 0) {
        std::this_thread::yield();
        continue;
      }
      WriteIo<uint8_t>(uart, 0, ReadIo<uint8_t>(uart, 0));
      ++echoed;
    }
  });
  // The life cycle goes on meanwhile.
  for (int pause = 0; pause < 50; ++pause) {
    uart.Stop();
    Settle();
    uart.Start();
  }
  EXPECT_EQ(client.Read(kSize), text);
  sender.join();
  guest.join();
}

}  // namespace
}  // namespace bothy::chipset
