#include "net/user/user_backend.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "net/ethernet.h"
#include "net/open_backend.h"
#include "net/testing/inspected_number.h"
#include "net/testing/tiny_guest.h"
#include "net/user/forward_ports.h"
#include "support/endian.h"
#include "support/unique_fd.h"

namespace bothy::net {
namespace {

constexpr uint32_t kGateway = Ipv4(10, 0, 2, 2);
constexpr uint32_t kNameServer = Ipv4(10, 0, 2, 3);
constexpr uint32_t kGuest = Ipv4(10, 0, 2, 15);

// A socket of the host's on its loopback interface; `port` 0: any.
UniqueFd HostSocket(int type, uint16_t port, uint16_t& bound) {
  UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0) << errno;
  socklen_t size = sizeof address;
  EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  bound = ntohs(address.sin_port);
  if (type == SOCK_STREAM) {
    EXPECT_EQ(::listen(fd.get(), 8), 0);
  }
  return fd;
}
sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}
std::string ReadAll(int fd, size_t bytes) {
  std::string text(bytes, ' ');
  size_t done = 0;
  while (done < bytes) {
    const ssize_t count = ::recv(fd, text.data() + done, bytes - done, 0);
    if (count <= 0) break;
    done += static_cast<size_t>(count);
  }
  text.resize(done);
  return text;
}
std::string Pattern(size_t bytes) {
  std::string text(bytes, ' ');
  for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(i * 7 + i / 251);
  return text;
}

class UserBackendTest : public ::testing::TestWithParam<IoLoop::Engine> {
 protected:
  UserBackendTest() {
    auto loop = IoLoop::Create({.engine = GetParam()});
    EXPECT_TRUE(loop.ok()) << loop.status();
    loop_ = *std::move(loop);
  }
  absl::Status Open(const UserOptions& options) {
    auto backend = OpenBackend({.where = options, .limits = {}}, 4, *loop_);
    if (!backend.ok()) return backend.status();
    backend_ = *std::move(backend);
    guest_ = std::make_unique<TinyGuest>(*backend_, *loop_);
    return absl::OkStatus();
  }
  // With a forward of a port that nobody has.
  uint16_t OpenWithForward(Forward::Protocol protocol, uint16_t guest_port) {
    const int type = protocol == Forward::Protocol::kUdp ? SOCK_DGRAM : SOCK_STREAM;
    while (true) {
      uint16_t port = 0;
      HostSocket(type, 0, port);  // and closed again
      UserOptions options;
      options.forwards.push_back({.protocol = protocol,
                                  .host_address = "127.0.0.1",
                                  .host_port = port,
                                  .guest_port = guest_port});
      const absl::Status status = Open(options);
      if (absl::IsAlreadyExists(status)) continue;  // somebody else was quicker
      EXPECT_TRUE(status.ok()) << status;
      return port;
    }
  }
  uint64_t Number(const std::string& path) { return InspectedNumber(*backend_, path); }
  // Everything that is to be done gets its turn.
  void RunLoop() {
    for (int i = 0; i < 5; ++i) {
      class Nothing final : public IoLoop::Operation {
       public:
        void Complete(int64_t /*result*/) override { done = true; }
        bool done = false;
      } nothing;
      loop_->RunBlocking([] { return 0; }, nothing);
      loop_->RunUntil([&nothing] { return nothing.done; });
    }
  }

  void ExpectLoopbackOutOfReach(uint16_t port, uint16_t datagram_port);

  std::unique_ptr<IoLoop> loop_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<TinyGuest> guest_;
};

TEST_P(UserBackendTest, SaysWhatItIs) {
  ASSERT_TRUE(Open({}).ok());
  EXPECT_EQ(backend_->description(), "user 10.0.2.0/24");
  EXPECT_EQ(backend_->queue_pairs(), 1);
  EXPECT_EQ(backend_->queue(0).tap_fd(), -1);
  EXPECT_EQ(backend_->offloads(), Offloads{});
  EXPECT_TRUE(backend_->link_up());
  EXPECT_TRUE(backend_->UseQueuePairs(1).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(backend_->UseQueuePairs(2)));
}

// RFC 2131, 4.3.1.
TEST_P(UserBackendTest, DhcpGivesAnAddressARouterAndANameServer) {
  ASSERT_TRUE(Open({.cidr = "192.168.77.0/24", .forwards = {}}).ok());
  guest_->SetAddress(0);
  Packet discover;
  discover.protocol = Packet::kUdp;
  discover.destination = 0xFFFFFFFF;
  discover.source_port = 68;
  discover.destination_port = 67;
  discover.payload.assign(240, '\0');
  discover.payload[0] = 1;  // request, Ethernet
  discover.payload[1] = 1;
  discover.payload[2] = 6;
  discover.payload[4] = 42;
  std::copy(TinyGuest::kMac.begin(), TinyGuest::kMac.end(), discover.payload.begin() + 28);
  discover.payload.replace(236, 4, "\x63\x82\x53\x63");
  discover.payload += std::string("\x35\x01\x01\xff", 4);  // discover
  EXPECT_EQ(guest_->SendPacket(discover), FrameQueue::Sent::kYes);
  const Packet offer =
      guest_->WaitForPacket([](const Packet& packet) { return packet.destination_port == 68; });
  ASSERT_GT(offer.payload.size(), 240U);
  const auto address = [&offer](size_t offset) {
    return LoadBe<uint32_t>(offer.payload.data() + offset);
  };
  EXPECT_EQ(address(16), Ipv4(192, 168, 77, 15));
  std::map<uint8_t, uint32_t> options;
  for (size_t i = 240; i + 2 < offer.payload.size() && offer.payload[i] != '\xff';) {
    if (offer.payload[i + 1] == 4) options[offer.payload[i]] = address(i + 2);
    i += 2 + static_cast<uint8_t>(offer.payload[i + 1]);
  }
  EXPECT_EQ(options[1], Ipv4(255, 255, 255, 0));
  EXPECT_EQ(options[3], Ipv4(192, 168, 77, 2));
  EXPECT_EQ(options[6], Ipv4(192, 168, 77, 3));
}

// RFC 4861, 4.1 and 4.2.
TEST_P(UserBackendTest, Ipv6RoutersAnswerUnlessThereIsNone) {
  for (const bool ipv6 : {true, false}) {
    ASSERT_TRUE(Open({.cidr = "", .forwards = {}, .ipv6 = ipv6}).ok());
    FrameBytes solicitation(kEthernetHeaderBytes + 40 + 8);
    constexpr std::array<uint8_t, 6> kAllRouters = {0x33, 0x33, 0, 0, 0, 2};
    std::copy(kAllRouters.begin(), kAllRouters.end(), solicitation.begin());
    std::copy(TinyGuest::kMac.begin(), TinyGuest::kMac.end(), solicitation.begin() + 6);
    StoreBe<uint16_t>(solicitation.data() + kEthernetTypeOffset, kEthernetIpv6);
    uint8_t* ip = solicitation.data() + kEthernetHeaderBytes;
    ip[0] = 0x60;
    ip[5] = 8;
    ip[6] = 58;
    ip[7] = 255;
    ip[8] = 0xFE;  // from fe80::15 to ff02::2
    ip[9] = 0x80;
    ip[23] = 0x15;
    ip[24] = 0xFF;
    ip[25] = 0x02;
    ip[39] = 0x02;
    ip[40] = 133;
    uint32_t sum = 8 + 58;
    for (size_t i = 8; i < 48; i += 2) sum += LoadBe<uint16_t>(ip + i);
    while (sum > 0xFFFF) sum = (sum & 0xFFFF) + (sum >> 16);
    StoreBe<uint16_t>(ip + 42, static_cast<uint16_t>(~sum));
    EXPECT_EQ(guest_->SendFrame(solicitation), FrameQueue::Sent::kYes);
    const auto is_advertisement = [](std::span<const uint8_t> frame) {
      return frame.size() > kEthernetHeaderBytes + 48 &&
             LoadBe<uint16_t>(frame.data() + kEthernetTypeOffset) == kEthernetIpv6 &&
             frame[kEthernetHeaderBytes + 40] == 134;
    };
    if (ipv6) {
      const FrameBytes advertisement = guest_->WaitForFrame(is_advertisement);
      constexpr std::array<uint8_t, 8> kPrefix = {0xfd, 0xb0, 0x74, 0x69, 0x6e, 0x6e, 0, 0};
      EXPECT_NE(
          std::search(advertisement.begin(), advertisement.end(), kPrefix.begin(), kPrefix.end()),
          advertisement.end());
    } else {
      RunLoop();
      guest_->TakeAll();
      EXPECT_TRUE(std::none_of(guest_->frames().begin(), guest_->frames().end(), is_advertisement));
    }
  }
}

TEST_P(UserBackendTest, DatagramsOfAForwardedPortReachTheGuestAndAreAnswered) {
  const uint16_t port = OpenWithForward(Forward::Protocol::kUdp, 7);
  uint16_t own = 0;
  const UniqueFd host = HostSocket(SOCK_DGRAM, 0, own);
  const sockaddr_in to = Loopback(port);
  ASSERT_EQ(::sendto(host.get(), "hello", 5, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to),
            5);
  const Packet packet =
      guest_->WaitForPacket([](const Packet& p) { return p.protocol == Packet::kUdp; });
  EXPECT_EQ(packet.payload, "hello");
  EXPECT_EQ(packet.destination, kGuest);
  EXPECT_EQ(packet.destination_port, 7);
  EXPECT_EQ(packet.source, kGateway);
  Packet answer;
  answer.protocol = Packet::kUdp;
  answer.destination = packet.source;
  answer.source_port = 7;
  answer.destination_port = packet.source_port;
  answer.payload = "world!";
  EXPECT_EQ(guest_->SendPacket(answer), FrameQueue::Sent::kYes);
  EXPECT_EQ(ReadAll(host.get(), 6), "world!");
}

TEST_P(UserBackendTest, ConnectionsToAForwardedPortReachTheGuest) {
  const uint16_t port = OpenWithForward(Forward::Protocol::kTcp, 22);
  const UniqueFd host(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in to = Loopback(port);
  ASSERT_EQ(::connect(host.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
  TinyConnection connection = TinyConnection::Accept(*guest_, 22);
  ASSERT_EQ(::send(host.get(), "hello", 5, 0), 5);
  EXPECT_EQ(connection.Receive(5), "hello");
  connection.Send("world!");
  EXPECT_EQ(ReadAll(host.get(), 6), "world!");
  connection.Close();
  RunLoop();
  char byte = 0;
  EXPECT_EQ(::recv(host.get(), &byte, 1, 0), 0) << "the end";
}

TEST_P(UserBackendTest, AMegabyteEachWayArrivesAsItWas) {
  const std::string text = Pattern(1 << 20);
  for (const uint16_t mtu : {1500, 65'520}) {
    uint16_t port = 0;
    const UniqueFd listener = HostSocket(SOCK_STREAM, 0, port);
    ASSERT_TRUE(Open({.cidr = "", .forwards = {}, .host_loopback = true, .mtu = mtu}).ok());
    std::string received;
    std::thread server([&] {
      const UniqueFd peer(::accept(listener.get(), nullptr, nullptr));
      received = ReadAll(peer.get(), text.size());
      size_t sent = 0;
      while (sent < text.size()) {
        const ssize_t count = ::send(peer.get(), text.data() + sent, text.size() - sent, 0);
        if (count <= 0) break;
        sent += static_cast<size_t>(count);
      }
    });
    TinyConnection connection = TinyConnection::Connect(*guest_, kGateway, port, 40'000);
    connection.Send(text);
    EXPECT_TRUE(connection.Receive(text.size()) == text);
    server.join();
    EXPECT_TRUE(received == text);
    EXPECT_GE(Number("sockets"), 1U);
    backend_.reset();
  }
}

// The guest tries every way that there might be to two ports of the host's loopback interface.
void UserBackendTest::ExpectLoopbackOutOfReach(uint16_t port, uint16_t datagram_port) {
  using Sent = FrameQueue::Sent;
  Packet syn;
  syn.protocol = Packet::kTcp;
  syn.source_port = 40'000;
  syn.destination_port = port;
  syn.flags = Packet::kSyn;
  Packet datagram;
  datagram.protocol = Packet::kUdp;
  datagram.source_port = 40'000;
  datagram.destination_port = datagram_port;
  datagram.payload = "x";
  uint64_t dropped = 0;
  for (const uint32_t address : {Ipv4(127, 0, 0, 1), Ipv4(127, 1, 2, 3), Ipv4(0, 0, 0, 0)}) {
    syn.destination = address;
    datagram.destination = address;
    EXPECT_EQ(guest_->SendPacket(syn), Sent::kDropped);
    EXPECT_EQ(guest_->SendPacket(datagram), Sent::kDropped);
    dropped += 2;
    EXPECT_EQ(Number("send_drops/host_loopback"), dropped);
  }
  // The gateway answers for itself.
  for (const uint32_t address : {kGateway, kNameServer, Ipv4(255, 255, 255, 255)}) {
    syn.destination = address;
    datagram.destination = address;
    ++syn.source_port;
    ++datagram.source_port;
    guest_->SendPacket(syn);
    guest_->SendPacket(datagram);
  }
  RunLoop();
  guest_->TakeAll();
  RunLoop();
}

TEST_P(UserBackendTest, TheHostsLoopbackIsOutOfReachUnlessAskedFor) {
  uint16_t port = 0;
  const UniqueFd listener = HostSocket(SOCK_STREAM, 0, port);
  uint16_t datagram_port = 0;
  const UniqueFd datagrams = HostSocket(SOCK_DGRAM, 0, datagram_port);
  // With libslirp's guard, and with our own.
  for (const bool own : {false, true}) {
    if (own) {
      OpenWithForward(Forward::Protocol::kUdp, 40'000);
    } else {
      ASSERT_TRUE(Open({}).ok());
    }
    ExpectLoopbackOutOfReach(port, datagram_port);
    for (const int fd : {listener.get(), datagrams.get()}) {
      pollfd poll = {.fd = fd, .events = POLLIN, .revents = 0};
      EXPECT_EQ(::poll(&poll, 1, 0), 0) << "something came through";
    }
  }
}

TEST_P(UserBackendTest, PortsThatAreTakenAndOptionsThatAreWrongAreRefused) {
  uint16_t tcp = 0;
  const UniqueFd listener = HostSocket(SOCK_STREAM, 0, tcp);
  uint16_t udp = 0;
  const UniqueFd datagrams = HostSocket(SOCK_DGRAM, 0, udp);
  const auto with = [](const Forward& forward) {
    UserOptions options;
    options.forwards.push_back(forward);
    return options;
  };
  using Protocol = Forward::Protocol;
  for (const char* address : {"", "127.0.0.1"}) {
    const absl::Status status = Open(with({Protocol::kTcp, address, tcp, 22}));
    EXPECT_TRUE(absl::IsAlreadyExists(status)) << status;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(std::to_string(tcp)));
    EXPECT_TRUE(absl::IsAlreadyExists(Open(with({Protocol::kUdp, address, udp, 53}))));
  }
  EXPECT_TRUE(absl::IsInvalidArgument(Open(with({Protocol::kTcp, "", 0, 22}))));
  EXPECT_TRUE(absl::IsInvalidArgument(Open(with({Protocol::kTcp, "", 2222, 0}))));
  EXPECT_TRUE(absl::IsInvalidArgument(Open(with({Protocol::kTcp, "localhost", 2222, 22}))));
  // TEST-NET-1 (RFC 5737) is nobody's.
  EXPECT_TRUE(absl::IsInvalidArgument(Open(with({Protocol::kTcp, "192.0.2.1", 2222, 22}))));
  EXPECT_TRUE(absl::IsInvalidArgument(Open({.cidr = "", .forwards = {}, .mtu = 575})));
  EXPECT_TRUE(absl::IsInvalidArgument(Open({.cidr = "", .forwards = {}, .mtu = 65'521})));
}

TEST(ForwardPortsTest, AreTriedBesideThoseThatAreHeld) {
  uint16_t tcp = 0;
  const UniqueFd listener = HostSocket(SOCK_STREAM, 0, tcp);
  uint16_t udp = 0;
  UniqueFd datagrams = HostSocket(SOCK_DGRAM, 0, udp);
  using Protocol = Forward::Protocol;
  const Forward taken = {Protocol::kTcp, "", tcp, 22};
  const Forward also_taken = {Protocol::kUdp, "127.0.0.1", udp, 53};
  EXPECT_TRUE(absl::IsAlreadyExists(TryForwards({taken}, {})));
  EXPECT_TRUE(absl::IsAlreadyExists(TryForwards({also_taken}, {})));
  EXPECT_TRUE(absl::IsAlreadyExists(TryForwards({taken, also_taken}, {taken})));
  EXPECT_TRUE(absl::IsAlreadyExists(TryForwards({also_taken}, {{Protocol::kTcp, "", udp, 53}})))
      << "another protocol's";
  EXPECT_TRUE(TryForwards({taken, also_taken}, {also_taken, taken}).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(TryForwards({{Protocol::kTcp, "192.0.2.1", 2222, 22}}, {})));
  datagrams.Reset();
  EXPECT_TRUE(TryForwards({also_taken}, {}).ok());
  EXPECT_TRUE(TryForwards({also_taken}, {}).ok()) << "nothing is kept";
}

TEST_P(UserBackendTest, FramesThatItCannotHaveAreDroppedAndCounted) {
  ASSERT_TRUE(Open({.cidr = "", .forwards = {}, .mtu = 1500}).ok());
  using Sent = FrameQueue::Sent;
  EXPECT_EQ(guest_->SendFrame(FrameBytes(13)), Sent::kDropped);
  EXPECT_EQ(Number("send_drops/runt"), 1U);
  EXPECT_EQ(guest_->SendFrame(FrameBytes(1500 + kEthernetHeaderBytes + 1)), Sent::kDropped);
  EXPECT_EQ(Number("send_drops/oversized"), 1U);
  std::array<uint8_t, kHeaderBytes> header{};
  header[0] = 1;  // checksum to be made
  EXPECT_EQ(guest_->SendFrame(FrameBytes(60), header), Sent::kDropped);
  header = {0, 1};  // segments to be made
  EXPECT_EQ(guest_->SendFrame(FrameBytes(60), header), Sent::kDropped);
  EXPECT_EQ(Number("send_drops/not_offered"), 2U);
  // The first piece of a packet, and the last.
  for (const uint16_t fragment : {0x2000, 0x0001}) {
    FrameBytes frame(60);
    StoreBe<uint16_t>(frame.data() + kEthernetTypeOffset, kEthernetIpv4);
    frame[kEthernetHeaderBytes] = 0x45;
    StoreBe<uint16_t>(frame.data() + kEthernetHeaderBytes + 6, fragment);
    StoreBe<uint32_t>(frame.data() + kEthernetHeaderBytes + 16, kGateway);
    EXPECT_EQ(guest_->SendFrame(frame), Sent::kDropped);
  }
  EXPECT_EQ(Number("send_drops/fragment"), 2U);
  EXPECT_EQ(guest_->SendFrame(FrameBytes(1500 + kEthernetHeaderBytes)), Sent::kYes);
  EXPECT_EQ(Number("sent_frames"), 1U);
}

TEST_P(UserBackendTest, FramesLongerThanTheBuffersAreDropped) {
  const uint16_t port = OpenWithForward(Forward::Protocol::kUdp, 7);
  // The guest is known, so that nothing but the datagrams comes.
  uint16_t own = 0;
  const UniqueFd host = HostSocket(SOCK_DGRAM, 0, own);
  const sockaddr_in to = Loopback(port);
  const auto* address = reinterpret_cast<const sockaddr*>(&to);
  ASSERT_EQ(::sendto(host.get(), "first", 5, 0, address, sizeof to), 5);
  guest_->WaitForPacket([](const Packet& packet) { return packet.payload == "first"; });
  const std::string longer(200, 'x');
  ASSERT_EQ(::sendto(host.get(), longer.data(), longer.size(), 0, address, sizeof to), 200);
  ASSERT_EQ(::sendto(host.get(), "short", 5, 0, address, sizeof to), 5);
  FrameQueue& queue = backend_->queue(0);
  bool readable = false;
  queue.SetCallbacks([&readable] { readable = true; }, nullptr);
  size_t got = 0;
  while (got == 0) {
    FrameBytes buffer(kHeaderBytes + 100);
    const iovec into = {buffer.data(), buffer.size()};
    const auto bytes = queue.Receive(std::span(&into, 1));
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    got = *bytes;
    if (got == 0) loop_->RunUntil([&readable] { return std::exchange(readable, false); });
  }
  EXPECT_EQ(got, kHeaderBytes + kEthernetHeaderBytes + 20 + 8 + 5);
  EXPECT_EQ(Number("receive_drops/longer_than_buffers"), 1U);
}

// A paused machine, or a driver that gives no buffers.
TEST_P(UserBackendTest, AGuestThatTakesNothingHoldsUpNobodyButItself) {
  const uint16_t port = OpenWithForward(Forward::Protocol::kUdp, 7);
  uint16_t own = 0;
  const UniqueFd host = HostSocket(SOCK_DGRAM, 0, own);
  const sockaddr_in to = Loopback(port);
  const auto* address = reinterpret_cast<const sockaddr*>(&to);
  ASSERT_EQ(::sendto(host.get(), "first", 5, 0, address, sizeof to), 5);
  guest_->WaitForPacket([](const Packet& packet) { return packet.payload == "first"; });
  guest_->TakeAll();
  int calls = 0;
  backend_->queue(0).SetCallbacks([&calls] { ++calls; }, nullptr);
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(::sendto(host.get(), "flood", 5, 0, address, sizeof to), 5);
  }
  loop_->RunUntil([&calls] { return calls != 0; });
  // Nothing goes on now: what isn't waiting for the guest waits in the socket.
  for (int i = 0; i < 5; ++i) RunLoop();
  EXPECT_EQ(calls, 1);
  // What it sends itself is answered, up to a bound.
  FrameBytes request(42);  // for the gateway's address
  std::copy(TinyGuest::kBroadcast.begin(), TinyGuest::kBroadcast.end(), request.begin());
  std::copy(TinyGuest::kMac.begin(), TinyGuest::kMac.end(), request.begin() + 6);
  constexpr std::array<uint8_t, 10> kRequest = {8, 6, 0, 1, 8, 0, 6, 4, 0, 1};
  std::copy(kRequest.begin(), kRequest.end(), request.begin() + 12);
  std::copy(TinyGuest::kMac.begin(), TinyGuest::kMac.end(), request.begin() + 22);
  StoreBe<uint32_t>(request.data() + 28, kGuest);
  StoreBe<uint32_t>(request.data() + 38, kGateway);
  for (int i = 0; i < 5000; ++i) {
    ASSERT_EQ(guest_->SendFrame(request), FrameQueue::Sent::kYes);
  }
  EXPECT_GT(Number("receive_drops/queue_full"), 0U);
  EXPECT_LT(Number("receive_drops/queue_full"), 5000U);
  // And once it takes them again, the flood comes too.
  int floods = 0;
  TinyGuest again(*backend_, *loop_);
  while (floods < 50) {
    again.WaitForPacket([](const Packet& packet) { return packet.payload == "flood"; });
    ++floods;
  }
}

TEST_P(UserBackendTest, TheHostsDescriptorsAreNotTheGuestsToUseUp) {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  const rlimit few = {200, limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  ASSERT_TRUE(Open({}).ok());
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  Packet datagram;
  datagram.protocol = Packet::kUdp;
  // To the gateway, where nobody listens: nothing leaves this machine.
  datagram.destination = kGateway;
  datagram.destination_port = 9;
  datagram.payload = "x";
  for (uint16_t port = 1; port <= 500; ++port) {
    datagram.source_port = port;
    guest_->SendPacket(datagram);
  }
  EXPECT_EQ(Number("sockets"), 100U);
  EXPECT_EQ(Number("send_drops/too_many_flows"), 400U);
}

TEST_P(UserBackendTest, TwoOfThemOnThreadsOfTheirOwn) {
  constexpr int kRounds = 200;
  std::vector<std::thread> threads;
  std::array<int, 2> done{};
  for (int& rounds : done) {
    threads.emplace_back([&rounds] {
      auto loop = IoLoop::Create({.engine = GetParam()});
      ASSERT_TRUE(loop.ok());
      auto backend = OpenUserBackend({.cidr = "", .forwards = {}, .host_loopback = true}, **loop);
      ASSERT_TRUE(backend.ok()) << backend.status();
      TinyGuest guest(**backend, **loop);
      uint16_t port = 0;
      const UniqueFd echo = HostSocket(SOCK_DGRAM, 0, port);
      Packet datagram;
      datagram.protocol = Packet::kUdp;
      datagram.destination = kGateway;
      datagram.destination_port = port;
      datagram.source_port = 4000;
      for (; rounds < kRounds; ++rounds) {
        datagram.payload = std::to_string(rounds);
        guest.SendPacket(datagram);
        std::array<char, 16> bytes{};
        sockaddr_in from{};
        socklen_t size = sizeof from;
        auto* address = reinterpret_cast<sockaddr*>(&from);
        const ssize_t count = ::recvfrom(echo.get(), bytes.data(), bytes.size(), 0, address, &size);
        ASSERT_GT(count, 0);
        ASSERT_EQ(::sendto(echo.get(), bytes.data(), count, 0, address, size), count);
        guest.WaitForPacket([&](const Packet& p) { return p.payload == datagram.payload; });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(done[0] + done[1], 2 * kRounds);
}

INSTANTIATE_TEST_SUITE_P(Engines, UserBackendTest,
                         ::testing::Values(IoLoop::Engine::kUring, IoLoop::Engine::kThreadPool),
                         [](const auto& engine) {
                           return engine.param == IoLoop::Engine::kUring ? "Uring" : "ThreadPool";
                         });

TEST(UserOptionsTest, AddressesFollowFromTheNetwork) {
  const auto text = [](in_addr address) {
    char buffer[INET_ADDRSTRLEN] = {};
    return std::string(::inet_ntop(AF_INET, &address, buffer, sizeof buffer));
  };
  auto addresses = ChooseAddresses("");
  ASSERT_TRUE(addresses.ok()) << addresses.status();
  EXPECT_EQ(addresses->cidr, "10.0.2.0/24");
  EXPECT_EQ(text(addresses->gateway), "10.0.2.2");
  EXPECT_EQ(text(addresses->name_server), "10.0.2.3");
  EXPECT_EQ(text(addresses->guest), "10.0.2.15");
  addresses = ChooseAddresses("192.168.1.8/29");
  ASSERT_TRUE(addresses.ok()) << addresses.status();
  EXPECT_EQ(text(addresses->gateway), "192.168.1.10");
  EXPECT_EQ(text(addresses->guest), "192.168.1.12");
  EXPECT_EQ(text(addresses->mask), "255.255.255.248");
  EXPECT_TRUE(ChooseAddresses("11.0.0.0/8").ok());
  for (const char* bad :
       {"10.0.2.0", "10.0.2.0/", "10.0.2.0/30", "10.0.2.0/7", "10.0.2.0/24x", "10.0.2.0/-1",
        "10.0.2.5/24", "10.0.2/24", "fe80::/64", "127.0.0.0/8", "0.0.0.0/8", "224.0.0.0/8",
        "255.255.255.0/24", "/24", "10.0.2.0/024000000000000000"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ChooseAddresses(bad).status())) << bad;
  }
}

}  // namespace
}  // namespace bothy::net
