#include "virtio/vsock/vsock_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "inspect/inspection.h"
#include "support/endian.h"
#include "support/testing/test_folder.h"
#include "support/unix_socket.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/test_transport.h"

namespace bothy::virtio {
namespace {

using testing::DriverQueue;
using namespace vsock;  // NOLINT(google-build-using-namespace): all of it is the wire's

class FakeTransport final : public testing::TestTransport {
 public:
  void InterruptQueue(uint16_t) override { ++interrupts; }
  void NeedsReset(const absl::Status& reason) override { broken.push_back(reason); }
  int interrupts = 0;
  std::vector<absl::Status> broken;
};

struct Packet {
  PacketHeader header;
  std::string data;
};

// A driver that has as many receive buffers as a test gives it, and a host with listeners.
class VsockDeviceTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kCid = 42;
  static constexpr uint32_t kGuestPort = 1000;
  static constexpr uint32_t kHostPort = 52;
  static constexpr uint32_t kBufferBytes = 4096;
  static constexpr uint64_t kReceiveBuffers = 0x10'0000;
  static constexpr uint64_t kSendBuffers = 0x80'0000;

  VsockDeviceTest() {
    device_.Resume();
    Activate();
    auto listener = UnixListener::Create(path_);
    CHECK_OK(listener.status());
    listener_ = *std::move(listener);
    listening_ = listener_.TakeSocket();
    CHECK_OK(ports_.Add(kHostPort, path_));
  }
  ~VsockDeviceTest() override { Reset(); }

  void Activate(uint16_t receive_buffers = 256) {
    CHECK_OK(memory_->Zero(0x1000, 0x2'0000));
    receive_.emplace(*memory_, 0x1000, uint16_t{512});
    transmit_.emplace(*memory_, 0x8000, uint16_t{128});
    events_.emplace(*memory_, 0xA000, uint16_t{16});
    std::vector<std::unique_ptr<Virtqueue>> queues;
    for (DriverQueue* queue : {&*receive_, &*transmit_, &*events_}) {
      queues.push_back(*Virtqueue::Create(*memory_, queue->setup()));
    }
    for (uint16_t i = 0; i < receive_buffers; ++i) OfferBuffer();
    device_.Activate(transport_, kFeatureStream, std::move(queues));
  }
  void Reset() {
    bool done = false;
    device_.Reset([&] { done = true; });
    EXPECT_TRUE(done);
    places_.clear();
    received_.clear();
    next_place_ = 0;
  }
  void OfferBuffer() {
    const uint64_t gpa = kReceiveBuffers + kBufferBytes * (next_place_++ % 1024);
    const std::array<DriverQueue::Buffer, 1> buffer = {
        DriverQueue::Buffer{.gpa = gpa, .length = kBufferBytes, .writable = true}};
    const auto head = receive_->Add(buffer);
    CHECK(head.has_value());
    places_[*head] = gpa;
  }
  void OfferBuffers(int count) {
    for (int i = 0; i < count; ++i) OfferBuffer();
    device_.OnDoorbell(kReceiveQueue);
  }
  static PacketHeader Header(uint16_t operation, uint32_t length = 0) {
    return {.source_cid = kCid,
            .destination_cid = kHostCid,
            .source_port = kGuestPort,
            .destination_port = kHostPort,
            .length = length,
            .type = kTypeStream,
            .operation = operation,
            .buffer_bytes = 0x10000,
            .forwarded_bytes = 0};
  }
  void SendRaw(std::string_view bytes) {
    const uint64_t gpa = kSendBuffers;
    CHECK_OK(memory_->Write(
        gpa, std::span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size())));
    const auto size = static_cast<uint32_t>(bytes.size());
    const uint32_t first = std::min<uint32_t>(size, 20);  // headers may come in pieces
    std::vector<DriverQueue::Buffer> buffers = {{.gpa = gpa, .length = first}};
    if (size > first) buffers.push_back({.gpa = gpa + first, .length = size - first});
    CHECK(transmit_->Add(buffers).has_value());
    device_.OnDoorbell(kTransmitQueue);
    while (transmit_->TakeUsed().has_value()) {
    }
  }
  void Send(const PacketHeader& header, std::string_view data = "") {
    const auto bytes = header.ToBytes();
    SendRaw(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()) +
            std::string(data));
  }
  void SendData(std::string_view data) {
    Send(Header(kData, static_cast<uint32_t>(data.size())), data);
  }
  // Takes what has come off the queue.
  void Take() {
    while (const auto used = receive_->TakeUsed()) {
      std::vector<uint8_t> bytes(used->written);
      CHECK_OK(memory_->Read(places_.at(static_cast<uint16_t>(used->head)), bytes));
      std::array<uint8_t, PacketHeader::kBytes> header{};
      CHECK(bytes.size() >= header.size());
      std::copy_n(bytes.begin(), header.size(), header.begin());
      Packet packet{PacketHeader::Parse(header), std::string(bytes.begin() + 44, bytes.end())};
      EXPECT_EQ(packet.header.length, packet.data.size());
      EXPECT_EQ(packet.header.destination_cid, kCid);
      received_.push_back(std::move(packet));
    }
  }
  // The next packet, or one with operation 0.
  Packet Next() {
    Take();
    if (received_.empty()) return {};
    Packet packet = std::move(received_.front());
    received_.erase(received_.begin());
    return packet;
  }
  Packet AwaitNext() {
    loop_->RunUntil([this] {
      Take();
      return !received_.empty();
    });
    return Next();
  }
  void ExpectReset() { EXPECT_EQ(Next().header.operation, kReset); }
  void ExpectSilence() {
    RunPosted();
    EXPECT_EQ(Next().header.operation, 0);
    EXPECT_TRUE(transport_.broken.empty());
  }
  // What has been posted, and what descriptors say by then.
  void RunPosted() {
    int rounds = 0;
    std::function<void()> again = [&] {
      if (++rounds < 3) loop_->Post(again);
    };
    loop_->Post(again);
    loop_->RunUntil([&] { return rounds == 3; });
  }
  // A number that inspection shows.
  uint64_t Shown(const std::string& path) {
    uint64_t number = 0;
    inspect::Inspection::Start(
        *inspect::Query::Parse(path, 0), [this](inspect::Node& node) { device_.Inspect(node); },
        [&](const absl::StatusOr<inspect::Value>& value) {
          EXPECT_TRUE(value.ok()) << value.status();
          if (value.ok()) number = std::get<uint64_t>(value->AsVariant());
        });
    return number;
  }
  // Whatever could happen by itself has happened, and nothing has.
  void ExpectRest() {
    RunPosted();
    const uint64_t rounds = Shown("rounds");
    for (int i = 0; i < 100; ++i) RunPosted();
    EXPECT_EQ(Shown("rounds"), rounds);
    ExpectSilence();
  }
  void Chat(uint32_t guest_port, int turns);
  // A connection that the guest begins; the host's end.
  UniqueFd GuestConnects() {
    Send(Header(kRequest));
    EXPECT_EQ(Next().header.operation, kResponse);
    UniqueFd socket(::accept4(listening_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    EXPECT_TRUE(socket.valid());
    return socket;
  }
  // A pair: what Connect is given, and its other end.
  UniqueFd HostConnects(uint32_t port) {
    int ends[2];
    CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    device_.Connect(port, UniqueFd(ends[0]));
    return UniqueFd(ends[1]);
  }
  static std::string Receive(const UniqueFd& socket) {
    std::string text;
    std::array<char, 4096> bytes{};
    while (true) {
      const ssize_t result = ::recv(socket.get(), bytes.data(), bytes.size(), 0);
      if (result <= 0) return result == 0 ? text + "<end>" : text;
      text.append(bytes.data(), static_cast<size_t>(result));
    }
  }
  static void Say(const UniqueFd& socket, std::string_view text) {
    ASSERT_EQ(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }

  TestFolder folder_;
  const std::string path_ = folder_ / "listener";
  std::unique_ptr<memory::GuestMemory> memory_ = testing::TestRam(16 << 20);
  std::unique_ptr<IoLoop> loop_ = *IoLoop::Create();
  FakeTransport transport_;
  sockets::PortTable ports_;
  UnixListener listener_;
  UniqueFd listening_;
  std::optional<DriverQueue> receive_;
  std::optional<DriverQueue> transmit_;
  std::optional<DriverQueue> events_;
  std::map<uint16_t, uint64_t> places_;
  uint64_t next_place_ = 0;
  std::vector<Packet> received_;
  VsockDevice device_{{.name = "vsock0", .guest_cid = kCid}, ports_, *loop_};
};

TEST_F(VsockDeviceTest, SaysTheGuestsCid) {
  std::array<uint8_t, 12> config{};
  device_.ReadConfig(0, config);
  EXPECT_EQ(LoadLe<uint64_t>(config.data()), kCid);
  EXPECT_EQ(LoadLe<uint32_t>(&config[8]), 0U);
}

TEST_F(VsockDeviceTest, GuestConnectsAndDataGoesBothWays) {
  const UniqueFd host = GuestConnects();
  SendData("from the guest");
  EXPECT_EQ(Receive(host), "from the guest");
  Say(host, "from the host");
  const Packet packet = AwaitNext();
  EXPECT_EQ(packet.header.operation, kData);
  EXPECT_EQ(packet.header.source_port, kHostPort);
  EXPECT_EQ(packet.header.destination_port, kGuestPort);
  EXPECT_EQ(packet.header.forwarded_bytes, 14U);
  EXPECT_EQ(packet.data, "from the host");
  EXPECT_GT(transport_.interrupts, 0);
}

TEST_F(VsockDeviceTest, HostConnectsAndGetsItsAnswer) {
  const UniqueFd host = HostConnects(22);
  Say(host, "early");
  const Packet request = Next();
  ASSERT_EQ(request.header.operation, kRequest);
  EXPECT_EQ(request.header.destination_port, 22U);
  EXPECT_EQ(request.header.source_port, 1U << 30);
  PacketHeader answer = Header(kResponse);
  answer.source_port = 22;
  answer.destination_port = request.header.source_port;
  Send(answer);
  EXPECT_EQ(Receive(host), "OK 1073741824\n");
  const Packet data = AwaitNext();
  EXPECT_EQ(data.data, "early");
  EXPECT_EQ(data.header.forwarded_bytes, 0U);  // the answer wasn't the guest's
}

TEST_F(VsockDeviceTest, AGuestThatDoesntListenClosesTheHostsSocket) {
  const UniqueFd host = HostConnects(22);
  PacketHeader refusal = Header(kReset);
  refusal.source_port = 22;
  refusal.destination_port = Next().header.source_port;
  Send(refusal);
  EXPECT_EQ(Receive(host), "<end>");
  EXPECT_EQ(device_.connections(), 0U);
  ExpectSilence();
}

TEST_F(VsockDeviceTest, AHostThatLeavesBeforeTheAnswerIsForgotten) {
  { const UniqueFd host = HostConnects(22); }
  EXPECT_EQ(Next().header.operation, kRequest);
  EXPECT_EQ(AwaitNext().header.operation, kReset);
  EXPECT_EQ(device_.connections(), 0U);
}

TEST_F(VsockDeviceTest, AHostThatLeavesDuringTheAnswerIsReset) {
  std::optional<UniqueFd> host = HostConnects(22);
  Say(*host, "x");  // so that leaving isn't seen before
  const Packet request = Next();
  host.reset();
  PacketHeader answer = Header(kResponse);
  answer.source_port = 22;
  answer.destination_port = request.header.source_port;
  Send(answer);
  ExpectReset();
  EXPECT_EQ(device_.connections(), 0U);
}

TEST_F(VsockDeviceTest, WhoConnectsBeforeTheDriverIsThereWaitsForIt) {
  Reset();
  const UniqueFd host = HostConnects(22);
  { const UniqueFd impatient = HostConnects(23); }
  loop_->RunUntil([this] { return device_.connections() == 1; });
  Activate();
  const Packet request = Next();
  EXPECT_EQ(request.header.operation, kRequest);
  EXPECT_EQ(request.header.destination_port, 22U);
  ExpectSilence();
}

TEST_F(VsockDeviceTest, APortWithoutAListenerIsReset) {
  PacketHeader request = Header(kRequest);
  request.destination_port = 53;
  Send(request);
  const Packet reset = Next();
  EXPECT_EQ(reset.header.operation, kReset);
  EXPECT_EQ(reset.header.source_port, 53U);
  EXPECT_EQ(reset.header.destination_port, kGuestPort);
  // One that has gone, too; it may come back.
  listener_.RemovePath();
  listening_.Reset();
  Send(Header(kRequest));
  ExpectReset();
  listener_ = *UnixListener::Create(path_);
  listening_ = listener_.TakeSocket();
  EXPECT_TRUE(GuestConnects().valid());
}

TEST_F(VsockDeviceTest, HalfCloseGoesBothWays) {
  const UniqueFd host = GuestConnects();
  PacketHeader end = Header(kShutdown);
  end.flags = kNoMoreSent;
  SendData("last words");
  Send(end);
  EXPECT_EQ(Receive(host), "last words<end>");
  Say(host, "heard");
  EXPECT_EQ(AwaitNext().data, "heard");
  ASSERT_EQ(::shutdown(host.get(), SHUT_WR), 0);
  const Packet packet = AwaitNext();
  EXPECT_EQ(packet.header.operation, kShutdown);
  EXPECT_NE(packet.header.flags & kNoMoreSent, 0U);
  end.flags = kNoMoreAtAll;
  Send(end);
  ExpectReset();
  EXPECT_EQ(device_.connections(), 0U);
}

TEST_F(VsockDeviceTest, AHostThatClosesEndsBothDirections) {
  std::optional<UniqueFd> host = GuestConnects();
  Say(*host, "bye");
  host.reset();
  EXPECT_EQ(AwaitNext().data, "bye");
  const Packet packet = AwaitNext();
  EXPECT_EQ(packet.header.operation, kShutdown);
  EXPECT_EQ(packet.header.flags, kNoMoreAtAll);
  Send(Header(kReset));
  EXPECT_EQ(device_.connections(), 0U);
}

TEST_F(VsockDeviceTest, AHostThatClosesWithDataUnreadResets) {
  std::optional<UniqueFd> host = GuestConnects();
  SendData("nobody reads this");
  host.reset();
  EXPECT_EQ(AwaitNext().header.operation, kReset);
  EXPECT_EQ(device_.connections(), 0U);
}

TEST_F(VsockDeviceTest, WhatTheGuestSentBeforeItClosedIsStillRead) {
  const UniqueFd host = GuestConnects();
  std::string sent;
  // More than the host's socket takes.
  const std::string piece(0x10000, 'x');
  for (int i = 0; i < 4 && device_.connections() == 1; ++i) {
    SendData(piece);
    sent += piece;
  }
  PacketHeader end = Header(kShutdown);
  end.flags = kNoMoreAtAll;
  Send(end);
  std::string got;
  loop_->RunUntil([&] {
    got += Receive(host);
    return got.ends_with("<end>");
  });
  EXPECT_EQ(got, sent + "<end>");
  loop_->RunUntil([&] { return device_.connections() == 0; });
}

TEST_F(VsockDeviceTest, KeepsNoMoreThanTheWindow) {
  const UniqueFd host = GuestConnects();
  // Nobody reads: the socket's buffer and the window fill, then there is no credit.
  const std::string piece(0x10000, 'x');
  int sent = 0;
  while (device_.connections() == 1 && sent < 100) {
    SendData(piece);
    ++sent;
  }
  EXPECT_LT(sent, 100);
  Packet last;
  for (Packet packet = Next(); packet.header.operation != 0; packet = Next()) last = packet;
  EXPECT_EQ(last.header.operation, kReset);
}

TEST_F(VsockDeviceTest, AHostThatReadsGivesCredit) {
  const UniqueFd host = GuestConnects();
  const std::string piece(0x10000, 'x');
  uint32_t sent = 0;
  uint32_t forwarded = 0;
  // A guest that keeps to its credit moves any amount.
  for (int i = 0; i < 64;) {
    if (sent - forwarded + piece.size() <= vsock::Connection::kWindow) {
      SendData(piece);
      sent += static_cast<uint32_t>(piece.size());
      ++i;
    } else {
      RunPosted();
      Receive(host);
    }
    for (Packet packet = Next(); packet.header.operation != 0; packet = Next()) {
      ASSERT_EQ(packet.header.operation, kCreditUpdate);
      EXPECT_EQ(packet.header.buffer_bytes, vsock::Connection::kWindow);
      forwarded = packet.header.forwarded_bytes;
    }
  }
  EXPECT_EQ(device_.connections(), 1U);
}

// Linux has no more on the way than its socket's own buffer, which programs choose.
TEST_F(VsockDeviceTest, AGuestWithASmallBufferGetsCreditInTime) {
  for (const uint32_t buffer : {1U, 128U, 0x4000U, 0x10000U}) {
    PacketHeader header = Header(kRequest);
    header.source_port = buffer;
    header.buffer_bytes = buffer;
    Send(header);
    EXPECT_EQ(Next().header.operation, kResponse);
    const UniqueFd host(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    header.operation = kData;
    header.length = std::max(buffer / 4, 1U);
    const std::string piece(header.length, 'x');
    uint32_t sent = 0;
    uint32_t forwarded = 0;
    for (int i = 0; i < 100; ++i) {
      while (sent + header.length - forwarded <= buffer) {
        Send(header, piece);
        sent += header.length;
      }
      std::string heard(sent, '\0');
      EXPECT_GT(::recv(host.get(), heard.data(), heard.size(), MSG_DONTWAIT), 0);
      Packet last;
      for (Packet packet = Next(); packet.header.operation != 0; packet = Next()) {
        EXPECT_EQ(packet.header.operation, kCreditUpdate);
        last = packet;
        OfferBuffer();
      }
      ASSERT_GT(last.header.forwarded_bytes, forwarded) << buffer;
      forwarded = last.header.forwarded_bytes;
    }
    header.operation = kReset;
    header.length = 0;
    Send(header);
  }
}

TEST_F(VsockDeviceTest, SendsNoMoreThanTheGuestHasRoomFor) {
  PacketHeader request = Header(kRequest);
  request.buffer_bytes = 10;
  Send(request);
  EXPECT_EQ(Next().header.operation, kResponse);
  const UniqueFd host(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  Say(host, "0123456789abcdef");
  EXPECT_EQ(AwaitNext().data, "0123456789");
  EXPECT_EQ(AwaitNext().header.operation, kCreditRequest);
  ExpectSilence();
  PacketHeader update = Header(kCreditUpdate);
  update.buffer_bytes = 10;
  update.forwarded_bytes = 4;
  Send(update);
  EXPECT_EQ(AwaitNext().data, "abcd");
  EXPECT_EQ(AwaitNext().header.operation, kCreditRequest);
  update.forwarded_bytes = 14;
  Send(update);
  EXPECT_EQ(AwaitNext().data, "ef");
}

// A connection of the guest's from another port, on which `turns` lines go there and back.
void VsockDeviceTest::Chat(uint32_t guest_port, int turns) {
  PacketHeader header = Header(kRequest);
  header.source_port = guest_port;
  Send(header);
  EXPECT_EQ(AwaitNext().header.destination_port, guest_port);
  const UniqueFd host(::accept4(listening_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  header.operation = kData;
  header.length = 5;
  for (int i = 0; i < turns; ++i) {
    Send(header, "hello");
    EXPECT_EQ(Receive(host), "hello");
    Say(host, "there");
    const Packet packet = AwaitNext();
    EXPECT_EQ(packet.header.destination_port, guest_port);
    EXPECT_EQ(packet.data, "there");
    header.forwarded_bytes += 5;
    OfferBuffer();
  }
  header.operation = kReset;
  header.length = 0;
  Send(header);
}

TEST_F(VsockDeviceTest, AHostThatDoesntReadStallsItselfAlone) {
  const UniqueFd host = GuestConnects();
  std::string sent;
  uint32_t forwarded = 0;
  // All that its credit allows.
  const auto send_all = [&] {
    for (Packet packet = Next(); packet.header.operation != 0; packet = Next()) {
      ASSERT_EQ(packet.header.operation, kCreditUpdate);
      ASSERT_LE(packet.header.forwarded_bytes, sent.size());
      forwarded = packet.header.forwarded_bytes;
    }
    while (sent.size() - forwarded < vsock::Connection::kWindow) {
      const size_t room = vsock::Connection::kWindow - (sent.size() - forwarded);
      std::string piece(std::min<size_t>(room, 0x10000), '\0');
      for (char& c : piece) c = static_cast<char>((sent.size() + (&c - piece.data())) * 7 >> 3);
      SendData(piece);
      sent += piece;
    }
  };
  // The host's socket takes some and says so; then there is no credit any more.
  do {
    send_all();
    RunPosted();
    Take();
  } while (!received_.empty());
  const std::string kept = "connections/1000-52/kept_bytes";
  EXPECT_GT(Shown(kept), vsock::Connection::kWindow / 2);
  EXPECT_LE(Shown(kept), vsock::Connection::kWindow);
  ExpectRest();
  Chat(2000, 50);
  EXPECT_LE(Shown(kept), vsock::Connection::kWindow);
  ExpectRest();
  // It reads at last, and all is there.
  std::string got;
  while (sent.size() < size_t{4} << 20 && device_.connections() == 1) {
    got += Receive(host);
    RunPosted();
    Take();
    send_all();
  }
  while (Shown(kept) != 0) {
    got += Receive(host);
    RunPosted();
  }
  got += Receive(host);
  EXPECT_EQ(got.size(), sent.size());
  EXPECT_TRUE(got == sent);
  EXPECT_EQ(device_.connections(), 1U);
}

TEST_F(VsockDeviceTest, AGuestThatDoesntReadStallsItselfAlone) {
  const UniqueFd host = GuestConnects();  // with room for 64 KiB
  std::string said;
  const auto say_all = [&] {
    std::string piece(4096, '\0');
    while (true) {
      for (char& c : piece) c = static_cast<char>((said.size() + (&c - piece.data())) * 7 >> 3);
      const ssize_t result = ::send(host.get(), piece.data(), piece.size(), MSG_NOSIGNAL);
      if (result <= 0) return;
      said.append(piece, 0, static_cast<size_t>(result));
    }
  };
  std::string got;
  bool asked = false;
  const auto take_all = [&] {
    RunPosted();
    for (Packet packet = Next(); packet.header.operation != 0; packet = Next()) {
      got += packet.data;
      asked = asked || packet.header.operation == kCreditRequest;
      OfferBuffer();
    }
  };
  for (size_t before = 1; before != said.size();) {
    before = said.size();
    say_all();
    take_all();
  }
  EXPECT_EQ(got.size(), 0x10000U);
  EXPECT_TRUE(asked);  // once
  EXPECT_LT(said.size(), size_t{2} << 20);
  EXPECT_EQ(Shown("connections/1000-52/kept_bytes"), 0U);
  ExpectRest();
  Chat(2000, 50);
  ExpectRest();
  // It reads at last, a little at a time: never is more on the way than it has room for.
  PacketHeader update = Header(kCreditUpdate);
  while (got.size() < said.size() && device_.connections() == 1) {
    update.forwarded_bytes = static_cast<uint32_t>(got.size() - 0x8000);
    Send(update);
    const size_t before = got.size();
    for (int i = 0; i < 1000 && got.size() == before; ++i) take_all();
    ASSERT_GT(got.size(), before);
    ASSERT_LE(got.size() - update.forwarded_bytes, 0x10000U);
  }
  EXPECT_TRUE(got == said);
}

TEST_F(VsockDeviceTest, AListenerWithAFullBacklogRefusesAtOnce) {
  auto listener = UnixListener::Create(folder_ / "busy", 1);
  ASSERT_TRUE(listener.ok());
  const UniqueFd busy = listener->TakeSocket();
  ASSERT_TRUE(ports_.Add(53, folder_ / "busy").ok());
  std::vector<UniqueFd> waiting;
  auto next = ConnectUnix(folder_ / "busy", ConnectMode::kNonBlocking);
  for (; next.ok(); next = ConnectUnix(folder_ / "busy", ConnectMode::kNonBlocking)) {
    waiting.push_back(*std::move(next));
  }
  ASSERT_TRUE(absl::IsUnavailable(next.status())) << next.status();
  PacketHeader request = Header(kRequest);
  request.destination_port = 53;
  // Before the loop runs at all; and nothing is tried again behind the guest's back.
  Send(request);
  ExpectReset();
  EXPECT_EQ(device_.connections(), 0U);
  EXPECT_EQ(Shown("refused"), 1U);
  ExpectRest();
  // Others aren't concerned, and it is welcome once there is room.
  Chat(2000, 1);
  (void)UniqueFd(::accept4(busy.get(), nullptr, nullptr, SOCK_CLOEXEC));
  Send(request);
  EXPECT_EQ(Next().header.operation, kResponse);
}

TEST_F(VsockDeviceTest, AnswersACreditRequest) {
  const UniqueFd host = GuestConnects();
  Send(Header(kCreditRequest));
  EXPECT_EQ(Next().header.operation, kCreditUpdate);
}

TEST_F(VsockDeviceTest, AnOlderCountOfTheGuestsSaysNothing) {
  const UniqueFd host = GuestConnects();
  Say(host, "0123456789");
  EXPECT_EQ(AwaitNext().data.size(), 10U);
  PacketHeader update = Header(kCreditUpdate);
  update.forwarded_bytes = 10;
  Send(update);
  update.forwarded_bytes = 5;  // overtaken
  Send(update);
  ExpectSilence();
  EXPECT_EQ(device_.connections(), 1U);
}

TEST_F(VsockDeviceTest, FillsManyBuffersFromOneSocket) {
  PacketHeader request = Header(kRequest);
  request.buffer_bytes = 1 << 20;
  Send(request);
  EXPECT_EQ(Next().header.operation, kResponse);
  const UniqueFd host(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  std::string all;
  for (int i = 0; i < 100'000; ++i) all.push_back(static_cast<char>(i * 7 + i / 256));
  Say(host, all);
  std::string got;
  while (got.size() < all.size()) got += AwaitNext().data;
  EXPECT_EQ(got, all);
}

TEST_F(VsockDeviceTest, WaitsForBuffersAndTakesTurns) {
  Reset();
  Activate(/*receive_buffers=*/1);
  const UniqueFd first = GuestConnects();
  PacketHeader other = Header(kRequest);
  other.source_port = kGuestPort + 1;
  Send(other);
  EXPECT_EQ(Next().header.operation, 0);  // no buffer
  OfferBuffers(1);
  EXPECT_EQ(Next().header.operation, kResponse);
  const UniqueFd second(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const std::string much(20'000, 'x');
  Say(first, much);
  Say(second, much);
  for (int i = 0; i < 20; ++i) RunPosted();
  std::vector<uint32_t> turns;
  size_t bytes = 0;
  while (bytes < 2 * much.size()) {
    OfferBuffers(1);
    const Packet packet = AwaitNext();
    bytes += packet.data.size();
    turns.push_back(packet.header.destination_port);
    RunPosted();
  }
  EXPECT_THAT(std::span(turns).first(4), ::testing::IsSupersetOf({kGuestPort, kGuestPort + 1}));
}

TEST_F(VsockDeviceTest, APauseLeavesTheGuestAlone) {
  const UniqueFd host = GuestConnects();
  bool done = false;
  device_.Quiesce([&] { done = true; });
  EXPECT_TRUE(done);
  Say(host, "later");
  SendData("later, too");
  for (int i = 0; i < 10; ++i) RunPosted();
  EXPECT_EQ(Next().header.operation, 0);
  EXPECT_EQ(Receive(host), "");
  device_.Resume();
  EXPECT_EQ(AwaitNext().data, "later");
  EXPECT_EQ(Receive(host), "later, too");
}

TEST_F(VsockDeviceTest, WhatAGuestSaidBeforeItStoppedIsHeard) {
  const UniqueFd host = GuestConnects();
  const auto bytes = Header(kData, 4).ToBytes();
  CHECK_OK(memory_->Write(kSendBuffers, bytes));
  CHECK_OK(memory_->Write(kSendBuffers + bytes.size(),
                          std::span(reinterpret_cast<const uint8_t*>("last"), 4)));
  const std::array<DriverQueue::Buffer, 1> buffer = {
      DriverQueue::Buffer{.gpa = kSendBuffers, .length = 48}};
  CHECK(transmit_->Add(buffer).has_value());  // and its doorbell isn't heard any more
  device_.Quiesce([] {});
  EXPECT_EQ(Receive(host), "last");
}

TEST_F(VsockDeviceTest, AResetClosesWhatTheDriverHad) {
  const UniqueFd host = GuestConnects();
  const UniqueFd asking = HostConnects(22);
  Reset();
  EXPECT_EQ(Receive(host), "<end>");
  EXPECT_EQ(Receive(asking), "<end>");
  EXPECT_EQ(device_.connections(), 0U);
  Activate();
  SendData("of before");
  ExpectReset();
  const UniqueFd again = GuestConnects();
  SendData("of now");
  EXPECT_EQ(Receive(again), "of now");
}

TEST_F(VsockDeviceTest, ThousandsOfConnectionsAreBounded) {
  std::vector<UniqueFd> hosts;
  for (size_t i = 0; i < VsockDevice::kMostConnections; ++i) hosts.push_back(HostConnects(22));
  EXPECT_EQ(device_.connections(), VsockDevice::kMostConnections);
  EXPECT_EQ(Receive(HostConnects(22)), "<end>");
  hosts.clear();
  for (Take(); device_.connections() != 0; Take()) {
    OfferBuffers(static_cast<int>(received_.size()));
    received_.clear();
    RunPosted();
  }
}

// --- hostile packets -----------------------------------------------------------------------------

TEST_F(VsockDeviceTest, PacketsOfNoConnectionAreReset) {
  for (const uint16_t operation : {kResponse, kShutdown, kData, kCreditUpdate, kCreditRequest,
                                   uint16_t{0}, uint16_t{8}, uint16_t{0xFFFF}}) {
    Send(Header(operation));
    ExpectReset();
  }
  Send(Header(kReset));
  ExpectSilence();
}

TEST_F(VsockDeviceTest, UnknownTypesAndWrongCidsAreReset) {
  PacketHeader header = Header(kRequest);
  header.type = 2;
  Send(header);
  ExpectReset();
  header = Header(kRequest);
  header.source_cid = kCid + 1;
  Send(header);
  ExpectReset();
  header = Header(kRequest);
  header.destination_cid = 1;
  Send(header);
  ExpectReset();
  header.operation = kReset;
  Send(header);
  ExpectSilence();
  EXPECT_EQ(device_.connections(), 0U);
}

TEST_F(VsockDeviceTest, WhatBreaksAConnectionResetsIt) {
  const auto breaks = [this](const PacketHeader& header, std::string_view data = "") {
    const UniqueFd host = GuestConnects();
    Send(header, data);
    ExpectReset();
    EXPECT_EQ(device_.connections(), 0U);
    EXPECT_EQ(Receive(host), "<end>");
  };
  breaks(Header(kRequest));                   // once more
  breaks(Header(kResponse));                  // to nothing
  breaks(Header(uint16_t{9}));                // no operation
  breaks(Header(kData, 5), "four");           // longer than it is
  breaks(Header(kData, 0xFFFFFFFF), "four");  // much longer
  PacketHeader header = Header(kCreditUpdate);
  header.forwarded_bytes = 1;  // of nothing
  breaks(header);
}

TEST_F(VsockDeviceTest, DataAfterTheEndResets) {
  const UniqueFd host = GuestConnects();
  PacketHeader end = Header(kShutdown);
  end.flags = kNoMoreSent;
  Send(end);
  SendData("more");
  ExpectReset();
  EXPECT_EQ(Receive(host), "<end>");
}

TEST_F(VsockDeviceTest, BytesBehindTheLengthDontCount) {
  const UniqueFd host = GuestConnects();
  Send(Header(kData, 3), "abcdef");
  Send(Header(kData, 0), "ghi");
  EXPECT_EQ(Receive(host), "abc");
}

TEST_F(VsockDeviceTest, APacketWithoutAHeaderBreaksTheDevice) {
  SendRaw("short");
  ASSERT_EQ(transport_.broken.size(), 1U);
  // Nothing more is looked at until a reset.
  Send(Header(kRequest));
  EXPECT_EQ(Next().header.operation, 0);
  Reset();
  transport_.broken.clear();
  Activate();
  EXPECT_TRUE(GuestConnects().valid());
}

TEST_F(VsockDeviceTest, AReceiveBufferWithoutRoomBreaksTheDevice) {
  Reset();
  Activate(0);
  const std::array<DriverQueue::Buffer, 1> buffer = {
      DriverQueue::Buffer{.gpa = kReceiveBuffers, .length = 44, .writable = true}};
  CHECK(receive_->Add(buffer).has_value());
  Send(Header(kRequest));
  EXPECT_EQ(transport_.broken.size(), 1U);
}

TEST_F(VsockDeviceTest, AnswersThatWaitForBuffersAreBounded) {
  Reset();
  Activate(0);
  // Each of these is to be reset. The driver gives no buffers, and so is heard no more.
  size_t taken = 0;
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 128; ++i) {
      const auto bytes = Header(kData).ToBytes();
      CHECK_OK(memory_->Write(kSendBuffers, bytes));
      const std::array<DriverQueue::Buffer, 1> buffer = {
          DriverQueue::Buffer{.gpa = kSendBuffers, .length = 44}};
      if (!transmit_->Add(buffer).has_value()) break;
    }
    device_.OnDoorbell(kTransmitQueue);
    RunPosted();
    while (transmit_->TakeUsed().has_value()) ++taken;
  }
  EXPECT_EQ(taken, 256U);
  // With buffers it goes on where it was.
  for (int round = 0; round < 5; ++round) {
    OfferBuffers(100);
    RunPosted();
    Take();
  }
  EXPECT_EQ(received_.size(), 256U + 128U);
}

}  // namespace
}  // namespace bothy::virtio
