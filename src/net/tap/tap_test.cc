// Taps and bridge ports, in a network namespace of each test's own.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "net/ethernet.h"
#include "net/netlink/links.h"
#include "net/open_backend.h"
#include "net/testing/inspected_number.h"
#include "net/testing/network_namespace.h"
#include "support/endian.h"
#include "support/io_loop.h"

namespace bothy::net {
namespace {

using Bytes = std::vector<uint8_t>;

// For local experiments (IEEE 802): nobody's but the tests'.
constexpr uint16_t kTestType = 0x88B5;

Bytes Frame(uint8_t tag, size_t payload = 100) {
  Bytes frame(kEthernetHeaderBytes + payload, tag);
  std::fill_n(frame.begin(), 6, uint8_t{0xFF});
  constexpr std::array<uint8_t, 6> kSource = {0x02, 0, 0, 0, 0, 0x01};
  std::copy(kSource.begin(), kSource.end(), frame.begin() + 6);
  StoreBe<uint16_t>(frame.data() + kEthernetTypeOffset, kTestType);
  return frame;
}

class Tap : public ::testing::TestWithParam<IoLoop::Engine> {
 protected:
  // The test's body, or a reason to skip it.
  void Run(const std::function<void()>& body) {
    if (::access("/dev/net/tun", R_OK | W_OK) != 0) {
      GTEST_SKIP() << "this user may not open /dev/net/tun, or there is none";
    }
    const absl::Status status = InNetworkNamespace([&] {
      auto loop = IoLoop::Create({.engine = GetParam()});
      ASSERT_TRUE(loop.ok()) << loop.status();
      loop_ = *std::move(loop);
      const std::set<std::string> before = Names();
      body();
      RunLoop();
      if (!left_behind_.empty()) {
        EXPECT_EQ(Names(), left_behind_);
      } else {
        EXPECT_EQ(Names(), before) << "something was left behind";
      }
      loop_.reset();
    });
    if (!status.ok()) GTEST_SKIP() << status.message();
  }

  static std::vector<Link> AllLinks() {
    auto links = Links::Open();
    EXPECT_TRUE(links.ok()) << links.status();
    auto all = links->All();
    EXPECT_TRUE(all.ok()) << all.status();
    return *std::move(all);
  }
  static std::set<std::string> Names() {
    std::set<std::string> names;
    for (const Link& link : AllLinks()) names.insert(link.name);
    return names;
  }
  static Link Find(const std::string& name) {
    auto link = Links::Open()->ByName(name);
    EXPECT_TRUE(link.ok()) << link.status();
    return link.value_or(Link{});
  }
  static absl::Status Change(LinkRequest request) {
    return Links::Open()->Change(std::move(request), "test");
  }
  static ifinfomsg Number(const std::string& name) {
    ifinfomsg link{};
    link.ifi_index = Find(name).index;
    return link;
  }
  static void AddBridge(const std::string& name, const std::string& alias = "",
                        uint32_t mtu = 1500) {
    LinkRequest request(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, {});
    request.String(IFLA_IFNAME, name);
    request.Begin(IFLA_LINKINFO).String(IFLA_INFO_KIND, "bridge").End();
    ASSERT_TRUE(Change(std::move(request)).ok());
    LinkRequest size(RTM_NEWLINK, NLM_F_ACK, Number(name));
    size.Number(IFLA_MTU, mtu);
    ASSERT_TRUE(Change(std::move(size)).ok());
    if (!alias.empty()) {
      LinkRequest set(RTM_NEWLINK, NLM_F_ACK, Number(name));
      set.Bytes(IFLA_IFALIAS,
                std::span(reinterpret_cast<const uint8_t*>(alias.data()), alias.size()));
      ASSERT_TRUE(Change(std::move(set)).ok());
    }
    SetUp(name, true);
  }
  static void SetUp(const std::string& name, bool up) {
    ifinfomsg link = Number(name);
    link.ifi_flags = up ? IFF_UP : 0;
    link.ifi_change = IFF_UP;
    ASSERT_TRUE(Change(LinkRequest(RTM_NEWLINK, NLM_F_ACK, link)).ok());
  }
  static void Remove(const std::string& name) {
    ASSERT_TRUE(Change(LinkRequest(RTM_DELLINK, NLM_F_ACK, Number(name))).ok());
  }
  // As an administrator makes one beforehand; it stays.
  static constexpr uid_t kNobody = 65'534;
  // Whether it could be made `owner`'s.
  static bool AddPersistentTap(const std::string& name, int flags = IFF_TAP | IFF_NO_PI,
                               uid_t owner = ::getuid()) {
    const UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
    ifreq request{};
    std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
    request.ifr_flags = static_cast<int16_t>(flags);
    EXPECT_EQ(::ioctl(fd.get(), TUNSETIFF, &request), 0) << errno;
    const bool owned = ::ioctl(fd.get(), TUNSETOWNER, owner) == 0;
    EXPECT_EQ(::ioctl(fd.get(), TUNSETPERSIST, 1), 0);
    return owned;
  }

  absl::StatusOr<std::unique_ptr<Backend>> Open(const std::string& tap, uint16_t pairs = 1) {
    return OpenBackend({.where = TapOptions{tap}, .limits = {}}, pairs, *loop_);
  }
  absl::StatusOr<std::unique_ptr<Backend>> OpenPort(const std::string& switch_id,
                                                    const std::string& port_id = "",
                                                    uint16_t pairs = 1) {
    return OpenBackend({.where = SwitchOptions{switch_id, port_id}, .limits = {}}, pairs, *loop_);
  }
  static std::string TapName(Backend& backend) {
    ifreq request{};
    EXPECT_EQ(::ioctl(backend.queue(0).tap_fd(), TUNGETIFF, &request), 0);
    return request.ifr_name;
  }

  // Everything that the loop has to do gets its turn a few times.
  void RunLoop() {
    class Nothing final : public IoLoop::Operation {
     public:
      void Complete(int64_t /*result*/) override { done = true; }
      bool done = false;
    };
    for (int i = 0; i < 5; ++i) {
      Nothing nothing;
      loop_->RunBlocking([] { return 0; }, nothing);
      loop_->RunUntil([&nothing] { return nothing.done; });
    }
  }
  void WaitForLink(Backend& backend, bool up) {
    if (backend.link_up() == up) return;
    bool changed = false;
    backend.SetLinkCallback([&] { changed = backend.link_up() == up; });
    loop_->RunUntil([&changed] { return changed; });
    backend.SetLinkCallback(nullptr);
  }

  static FrameQueue::Sent Send(FrameQueue& queue, const Bytes& frame,
                               std::array<uint8_t, kHeaderBytes> header = {}) {
    const std::array<iovec, 2> buffers = {iovec{header.data(), header.size()},
                                          iovec{const_cast<uint8_t*>(frame.data()), frame.size()}};
    return queue.Send(buffers);
  }
  // The next frame of the tests' that is there, in whatever is.
  static std::optional<Bytes> Receive(FrameQueue& queue) {
    while (true) {
      std::array<uint8_t, kHeaderBytes> header{};
      Bytes first(20);
      Bytes rest(kLargestFrame);
      const std::array<iovec, 3> buffers = {iovec{header.data(), header.size()},
                                            iovec{first.data(), first.size()},
                                            iovec{rest.data(), rest.size()}};
      const auto bytes = queue.Receive(buffers);
      EXPECT_TRUE(bytes.ok()) << bytes.status();
      if (!bytes.ok() || *bytes == 0) return std::nullopt;
      Bytes frame = first;
      frame.insert(frame.end(), rest.begin(), rest.end());
      frame.resize(*bytes - kHeaderBytes);
      if (LoadBe<uint16_t>(frame.data() + kEthernetTypeOffset) == kTestType) return frame;
    }
  }
  Bytes WaitForFrame(FrameQueue& queue) {
    std::optional<Bytes> frame = Receive(queue);
    bool readable = false;
    queue.SetCallbacks([&readable] { readable = true; }, nullptr);
    while (!frame) {
      loop_->RunUntil([&readable] { return std::exchange(readable, false); });
      frame = Receive(queue);
    }
    queue.SetCallbacks(nullptr, nullptr);
    return *std::move(frame);
  }

  // The host's side of a device.
  static UniqueFd PacketSocket(const std::string& name) {
    UniqueFd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = ByteSwap(kTestType);
    address.sll_ifindex = Find(name).index;
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return fd;
  }
  static Bytes ReadPacket(int fd) {
    Bytes packet(kLargestFrame);
    const ssize_t size = ::recv(fd, packet.data(), packet.size(), 0);
    EXPECT_GT(size, 0) << errno;
    packet.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
    return packet;
  }

  std::unique_ptr<IoLoop> loop_;
  std::set<std::string> left_behind_;  // by the test itself; empty: as before
};

TEST_P(Tap, ANewOneCarriesFramesBothWaysAndGoesWithItsBackend) {
  Run([this] {
    auto backend = Open("nic0");
    ASSERT_TRUE(backend.ok()) << backend.status();
    EXPECT_EQ(Names(), (std::set<std::string>{"lo", "nic0"}));
    EXPECT_TRUE((*backend)->link_up());
    EXPECT_EQ((*backend)->description(), "tap nic0");
    EXPECT_EQ((*backend)->mtu(), 1500);
    EXPECT_EQ((*backend)->queue_pairs(), 1);
    FrameQueue& queue = (*backend)->queue(0);
    const UniqueFd host = PacketSocket("nic0");
    EXPECT_EQ(Send(queue, Frame(1)), FrameQueue::Sent::kYes);
    EXPECT_EQ(ReadPacket(host.get()), Frame(1));
    EXPECT_EQ(Receive(queue), std::nullopt);
    const Bytes frame = Frame(2, 1500);
    ASSERT_EQ(::send(host.get(), frame.data(), frame.size(), 0),
              static_cast<ssize_t>(frame.size()));
    EXPECT_EQ(WaitForFrame(queue), frame);
  });
}

TEST_P(Tap, ReadinessComesOnceAndOnlyWhenItWasAskedFor) {
  Run([this] {
    auto backend = Open("nic0");
    ASSERT_TRUE(backend.ok()) << backend.status();
    FrameQueue& queue = (*backend)->queue(0);
    int calls = 0;
    queue.SetCallbacks([&calls] { ++calls; }, nullptr);
    const UniqueFd host = PacketSocket("nic0");
    const Bytes frame = Frame(1);
    for (int i = 0; i < 10; ++i) ASSERT_GT(::send(host.get(), frame.data(), frame.size(), 0), 0);
    RunLoop();
    EXPECT_EQ(calls, 0) << "nobody asked";
    while (Receive(queue)) {
    }
    for (int i = 0; i < 10; ++i) ASSERT_GT(::send(host.get(), frame.data(), frame.size(), 0), 0);
    loop_->RunUntil([&calls] { return calls != 0; });
    RunLoop();
    EXPECT_EQ(calls, 1) << "a paused machine's NIC is told once";
  });
}

TEST_P(Tap, FramesLongerThanTheBuffersAreDroppedAndTheNextOneTaken) {
  Run([this] {
    auto backend = Open("nic0");
    ASSERT_TRUE(backend.ok()) << backend.status();
    const UniqueFd host = PacketSocket("nic0");
    FrameQueue& queue = (*backend)->queue(0);
    const auto take = [&queue](size_t room) {
      Bytes buffer(room);
      const iovec into = {buffer.data(), buffer.size()};
      while (true) {
        const auto bytes = queue.Receive(std::span(&into, 1));
        if (!bytes.ok() || *bytes == 0) return size_t{0};
        if (LoadBe<uint16_t>(buffer.data() + kHeaderBytes + kEthernetTypeOffset) == kTestType) {
          return *bytes;
        }
      }
    };
    const Bytes longer = Frame(1, 200);
    const Bytes shorter = Frame(2, 199);
    ASSERT_GT(::send(host.get(), longer.data(), longer.size(), 0), 0);
    ASSERT_GT(::send(host.get(), shorter.data(), shorter.size(), 0), 0);
    EXPECT_EQ(take(kHeaderBytes + shorter.size()), kHeaderBytes + shorter.size());
    EXPECT_EQ(take(kHeaderBytes + shorter.size()), 0U);
  });
}

TEST_P(Tap, SegmentsLargerThanTheMtuPassWhereTheyAreAllowed) {
  Run([this] {
    auto backend = Open("nic0");
    ASSERT_TRUE(backend.ok()) << backend.status();
    EXPECT_TRUE((*backend)->offloads().checksum);
    EXPECT_TRUE((*backend)->offloads().tso4);
    const Offloads all = {.checksum = true, .tso4 = true, .tso6 = true, .ecn = true, .uso = true};
    EXPECT_TRUE((*backend)->SetReceiveOffloads(all).ok());
    EXPECT_TRUE((*backend)->SetReceiveOffloads({.checksum = true}).ok());
    EXPECT_TRUE((*backend)->SetReceiveOffloads({}).ok());
    // 8000 bytes of TCP over IPv4, to be cut into segments of 1000.
    Bytes frame = Frame(0, 8040);
    StoreBe<uint16_t>(frame.data() + kEthernetTypeOffset, kEthernetIpv4);
    uint8_t* ip = frame.data() + kEthernetHeaderBytes;
    ip[0] = 0x45;
    StoreBe<uint16_t>(ip + 2, 8040);
    ip[8] = 64;
    ip[9] = 6;
    ip[20 + 12] = 0x50;
    std::array<uint8_t, kHeaderBytes> header{};
    header[0] = 1;  // checksum to be made
    header[1] = 1;  // TSO over IPv4
    StoreLe<uint16_t>(header.data() + 2, kEthernetHeaderBytes + 40);
    StoreLe<uint16_t>(header.data() + 4, 1000);
    StoreLe<uint16_t>(header.data() + 6, kEthernetHeaderBytes + 20);
    StoreLe<uint16_t>(header.data() + 8, 16);
    EXPECT_EQ(Send((*backend)->queue(0), frame, header), FrameQueue::Sent::kYes);
    // One that lies: no such kind of segments.
    header[1] = 0x3F;
    EXPECT_EQ(Send((*backend)->queue(0), frame, header), FrameQueue::Sent::kDropped);
  });
}

TEST_P(Tap, SeveralQueuesComeIntoUseAndGo) {
  Run([this] {
    auto backend = Open("nic0", 4);
    ASSERT_TRUE(backend.ok()) << backend.status();
    ASSERT_EQ((*backend)->queue_pairs(), 4);
    const UniqueFd host = PacketSocket("nic0");
    using Sent = FrameQueue::Sent;
    EXPECT_EQ(Send((*backend)->queue(0), Frame(0)), Sent::kYes);
    EXPECT_EQ(Send((*backend)->queue(1), Frame(1)), Sent::kDropped) << "one is in use at first";
    ASSERT_TRUE((*backend)->UseQueuePairs(4).ok());
    for (uint16_t i = 0; i < 4; ++i) EXPECT_EQ(Send((*backend)->queue(i), Frame(9)), Sent::kYes);
    ASSERT_TRUE((*backend)->UseQueuePairs(2).ok());
    EXPECT_EQ(Send((*backend)->queue(1), Frame(1)), Sent::kYes);
    EXPECT_EQ(Send((*backend)->queue(2), Frame(1)), Sent::kDropped);
    for (const uint16_t bad : {0, 5}) {
      EXPECT_TRUE(absl::IsInvalidArgument((*backend)->UseQueuePairs(bad)));
    }
    // What comes goes to one of those in use.
    for (uint8_t i = 0; i < 100; ++i) {
      Bytes frame = Frame(i);
      frame[11] = i;
      ASSERT_GT(::send(host.get(), frame.data(), frame.size(), 0), 0);
    }
    ASSERT_TRUE((*backend)->link_up());
    int got = 0;
    for (uint16_t i = 0; i < 4; ++i) {
      while (Receive((*backend)->queue(i))) {
        EXPECT_LT(i, 2);
        ++got;
      }
    }
    EXPECT_EQ(got, 100);
  });
}

TEST_P(Tap, OneMadeBeforehandIsUsedAndStays) {
  Run([this] {
    AddPersistentTap("given0");
    {
      auto backend = Open("given0", 4);
      ASSERT_TRUE(backend.ok()) << backend.status();
      EXPECT_EQ((*backend)->queue_pairs(), 1) << "it has no more";
      EXPECT_TRUE((*backend)->link_up());
      const absl::Status status = Open("given0").status();
      EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
      EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("in use"));
    }
    EXPECT_EQ(Find("given0").flags & IFF_UP, 0U) << "it was down";
    SetUp("given0", true);
    { EXPECT_TRUE(Open("given0").ok()); }
    EXPECT_NE(Find("given0").flags & IFF_UP, 0U) << "it was up";
    auto again = Open("given0");
    EXPECT_TRUE(again.ok()) << again.status();
    again = absl::CancelledError();
    EXPECT_EQ(Names().count("given0"), 1U);
    Remove("given0");
  });
}

// As the kernel's data path has it, nothing of it goes through the queue's own calls.
TEST_P(Tap, FramesAreCountedWhoeverMovesThem) {
  Run([this] {
    AddPersistentTap("given0");
    {
      auto before = Open("given0");
      ASSERT_TRUE(before.ok()) << before.status();
      Send((*before)->queue(0), Frame(1));
    }
    {
      auto backend = Open("given0");
      ASSERT_TRUE(backend.ok()) << backend.status();
      std::array<uint8_t, kHeaderBytes> header{};
      const Bytes frame = Frame(2);
      const std::array<iovec, 2> buffers = {
          iovec{header.data(), header.size()},
          iovec{const_cast<uint8_t*>(frame.data()), frame.size()}};
      const int fd = (*backend)->queue(0).tap_fd();
      const uint64_t sent = InspectedNumber(**backend, "sent_frames");
      const uint64_t bytes = InspectedNumber(**backend, "sent_bytes");
      EXPECT_EQ(bytes, 0U) << "what went through it before doesn't count";
      for (int i = 0; i < 3; ++i) EXPECT_GT(::writev(fd, buffers.data(), buffers.size()), 0);
      EXPECT_EQ(InspectedNumber(**backend, "sent_frames"), sent + 3);
      EXPECT_EQ(InspectedNumber(**backend, "sent_bytes"), bytes + 3 * frame.size());
      // What it can't see it doesn't forget.
      Remove("given0");
      WaitForLink(**backend, false);
      EXPECT_EQ(InspectedNumber(**backend, "sent_frames"), sent + 3);
    }
  });
}

TEST_P(Tap, OneWithSeveralQueuesIsNotShared) {
  Run([this] {
    AddPersistentTap("given0", IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE);
    {
      auto backend = Open("given0", 1);
      ASSERT_TRUE(backend.ok()) << backend.status();
      EXPECT_TRUE(absl::IsFailedPrecondition(Open("given0", 2).status()));
    }
    Remove("given0");
  });
}

TEST_P(Tap, WhatIsNoTapIsRefused) {
  Run([this] {
    AddBridge("br0");
    AddPersistentTap("tun0", IFF_TUN | IFF_NO_PI);
    for (const char* name :
         {"br0", "lo", "tun0", "", "x/y", "tap%d", "..", "a name", "a:0", "a-name-too-long0"}) {
      const absl::Status status = Open(name).status();
      EXPECT_TRUE(absl::IsInvalidArgument(status)) << name << ": " << status;
    }
    EXPECT_TRUE(Open("a-name-of-15-by").ok());
    Remove("tun0");
    Remove("br0");
  });
}

TEST_P(Tap, WithoutPrivilegesOnlyWhatIsReadyIsHad) {
  Run([this] {
    AddBridge("br0");
    AddPersistentTap("ready0");
    AddPersistentTap("down0");
    SetUp("ready0", true);
    // In a user namespace there may be nobody else.
    const bool others = AddPersistentTap("other0", IFF_TAP | IFF_NO_PI, kNobody);
    SetUp("other0", true);
    const std::set<std::string> names = Names();
    DropCapabilities();
    if (others) {
      const absl::Status status = Open("other0").status();
      EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
      EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("another user"));
    }
    for (const absl::Status& status : {Open("new0").status(), Open("new0", 2).status(),
                                       Open("down0").status(), OpenPort("br0").status()}) {
      EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
      EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("CAP_NET_ADMIN"));
    }
    EXPECT_EQ(Find("down0").flags & IFF_UP, 0U);
    EXPECT_EQ(Names(), names);
    auto backend = Open("ready0");
    ASSERT_TRUE(backend.ok()) << backend.status();
    EXPECT_TRUE((*backend)->link_up());
    left_behind_ = names;  // with the namespace they go
  });
}

TEST_P(Tap, DownIsLinkDownAndUpAgainIsUp) {
  Run([this] {
    auto backend = Open("nic0");
    ASSERT_TRUE(backend.ok()) << backend.status();
    const UniqueFd host = PacketSocket("nic0");
    SetUp("nic0", false);
    WaitForLink(**backend, false);
    EXPECT_EQ(Send((*backend)->queue(0), Frame(1)), FrameQueue::Sent::kDropped);
    EXPECT_EQ(Receive((*backend)->queue(0)), std::nullopt);
    SetUp("nic0", true);
    WaitForLink(**backend, true);
    EXPECT_EQ(Send((*backend)->queue(0), Frame(1)), FrameQueue::Sent::kYes);
  });
}

TEST_P(Tap, NewsThatWereTooManyAreAskedForAgain) {
  Run([this] {
    auto backend = Open("nic0");
    ASSERT_TRUE(backend.ok()) << backend.status();
    // Many times what a socket holds, and the last word is among what is lost.
    for (int i = 0; i < 1000; ++i) SetUp("nic0", i % 2 != 0);
    SetUp("nic0", false);
    WaitForLink(**backend, false);
    RunLoop();
    EXPECT_FALSE((*backend)->link_up());
    SetUp("nic0", true);
    WaitForLink(**backend, true);
  });
}

TEST_P(Tap, OneRemovedInUseIsLinkDownAndNobodySpins) {
  Run([this] {
    auto backend = Open("nic0", 2);
    ASSERT_TRUE(backend.ok()) << backend.status();
    FrameQueue& queue = (*backend)->queue(0);
    int calls = 0;
    queue.SetCallbacks(
        [&] {
          ++calls;
          EXPECT_EQ(Receive(queue), std::nullopt);
        },
        nullptr);
    EXPECT_EQ(Receive(queue), std::nullopt);
    Remove("nic0");
    WaitForLink(**backend, false);
    RunLoop();
    EXPECT_LE(calls, 2);
    EXPECT_EQ(Send(queue, Frame(1)), FrameQueue::Sent::kDropped);
    EXPECT_EQ(Receive(queue), std::nullopt);
    const int before = calls;
    RunLoop();
    EXPECT_EQ(calls, before);
    EXPECT_FALSE((*backend)->UseQueuePairs(2).ok());
  });
}

TEST_P(Tap, APortHasItsBridgesMtuAndItsAlias) {
  Run([this] {
    AddBridge("br0", "2f5ac4e1-8e6b-4a29-9f55-2c7a4c0d7a11", 9000);
    // By name, and by its alias in another form.
    for (const char* id : {"br0", "{2F5AC4E1-8E6B-4A29-9F55-2C7A4C0D7A11}"}) {
      auto backend = OpenPort(id, "the port", 2);
      ASSERT_TRUE(backend.ok()) << backend.status();
      const Link port = Find(TapName(**backend));
      EXPECT_EQ(port.alias, "the port");
      EXPECT_EQ(port.mtu, 9000U);
      EXPECT_EQ(port.master, Find("br0").index);
      EXPECT_EQ((*backend)->mtu(), 9000);
      EXPECT_EQ((*backend)->queue_pairs(), 2);
      EXPECT_EQ((*backend)->description(), absl::StrCat("port ", port.name, " of bridge br0"));
      EXPECT_TRUE((*backend)->link_up());
      EXPECT_EQ(Find("br0").mtu, 9000U);
      EXPECT_EQ(Names(), (std::set<std::string>{"lo", "br0", port.name}));
    }
    EXPECT_EQ(Names(), (std::set<std::string>{"lo", "br0"}));
    Remove("br0");
  });
}

TEST_P(Tap, SwitchesThatAreNotOneBridgeAreRefused) {
  Run([this] {
    AddBridge("br0", "same");
    AddBridge("br1", "same");
    AddBridge("br2", "br0");
    AddPersistentTap("tap0");
    const std::set<std::string> names = Names();
    const absl::Status ambiguous = OpenPort("same").status();
    EXPECT_TRUE(absl::IsInvalidArgument(ambiguous)) << ambiguous;
    EXPECT_THAT(std::string(ambiguous.message()),
                ::testing::AllOf(::testing::HasSubstr("br0"), ::testing::HasSubstr("br1")));
    EXPECT_TRUE(absl::IsInvalidArgument(OpenPort("br0").status())) << "a name and an alias";
    EXPECT_TRUE(absl::IsNotFound(OpenPort("br9").status()));
    EXPECT_TRUE(absl::IsNotFound(OpenPort("tap0").status()));
    EXPECT_TRUE(absl::IsInvalidArgument(OpenPort("").status()));
    EXPECT_TRUE(absl::IsInvalidArgument(OpenPort("br1", std::string(256, 'x')).status()));
    EXPECT_TRUE(OpenPort("br1", std::string(255, 'x')).ok());
    EXPECT_EQ(Names(), names);
    left_behind_ = names;
  });
}

TEST_P(Tap, ABridgeOfAnMtuThatNoTapHasIsRefused) {
  Run([this] {
    AddBridge("br0", "", 65'535);
    const std::set<std::string> before = Names();
    const absl::Status status = OpenPort("br0").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("ip link set br0 mtu 65521"));
    EXPECT_EQ(Names(), before);
    LinkRequest size(RTM_NEWLINK, NLM_F_ACK, Number("br0"));
    size.Number(IFLA_MTU, 65'521);
    ASSERT_TRUE(Change(std::move(size)).ok());
    auto backend = OpenPort("br0");
    ASSERT_TRUE(backend.ok()) << backend.status();
    EXPECT_EQ((*backend)->mtu(), 65'521);
    backend->reset();
    Remove("br0");
  });
}

TEST_P(Tap, FramesStayOnTheirSwitch) {
  Run([this] {
    AddBridge("br0");
    AddBridge("br1");
    auto a = OpenPort("br0");
    auto b = OpenPort("br0");
    auto other = OpenPort("br1");
    ASSERT_TRUE(a.ok() && b.ok() && other.ok());
    for (uint8_t i = 0; i < 10; ++i) {
      EXPECT_EQ(Send((*a)->queue(0), Frame(i)), FrameQueue::Sent::kYes);
      EXPECT_EQ(WaitForFrame((*b)->queue(0)), Frame(i));
      EXPECT_EQ(Receive((*a)->queue(0)), std::nullopt);
      EXPECT_EQ(Receive((*other)->queue(0)), std::nullopt);
    }
    a = absl::CancelledError();
    b = absl::CancelledError();
    other = absl::CancelledError();
    Remove("br0");
    Remove("br1");
  });
}

TEST_P(Tap, ABridgeThatGoesAwayIsLinkDownAndNobodySpins) {
  Run([this] {
    AddBridge("br0");
    auto backend = OpenPort("br0");
    ASSERT_TRUE(backend.ok()) << backend.status();
    FrameQueue& queue = (*backend)->queue(0);
    int calls = 0;
    queue.SetCallbacks(
        [&] {
          ++calls;
          while (Receive(queue)) {
          }
        },
        nullptr);
    EXPECT_EQ(Receive(queue), std::nullopt);
    SetUp("br0", false);
    WaitForLink(**backend, false);
    SetUp("br0", true);
    WaitForLink(**backend, true);
    Remove("br0");
    WaitForLink(**backend, false);
    RunLoop();
    const int before = calls;
    RunLoop();
    EXPECT_EQ(calls, before);
    // A new one of that name is another.
    AddBridge("br0");
    RunLoop();
    EXPECT_FALSE((*backend)->link_up());
    Remove("br0");
  });
}

TEST_P(Tap, FailuresHalfWayLeaveNothing) {
  Run([this] {
    AddBridge("br0");
    const std::set<std::string> names = Names();
    rlimit limit{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    int failures = 0;
    const UniqueFd lowest(::dup(0));
    for (rlim_t room = 0; room < 12; ++room) {
      const rlimit few = {static_cast<rlim_t>(lowest.get()) + room, limit.rlim_max};
      ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
      const absl::Status tap = Open("nic0", 2).status();
      const absl::Status port = OpenPort("br0", "p", 2).status();
      ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
      for (const absl::Status& status : {tap, port}) {
        if (status.ok()) continue;
        ++failures;
        EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
      }
      EXPECT_EQ(Names(), names) << room;
    }
    EXPECT_GT(failures, 4);
    EXPECT_LT(failures, 24);
    Remove("br0");
  });
}

INSTANTIATE_TEST_SUITE_P(Engines, Tap,
                         ::testing::Values(IoLoop::Engine::kUring, IoLoop::Engine::kThreadPool),
                         [](const auto& engine) {
                           return engine.param == IoLoop::Engine::kUring ? "Uring" : "ThreadPool";
                         });

}  // namespace
}  // namespace bothy::net
