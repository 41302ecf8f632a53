#include "virtio/net/receive_steering.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <array>
#include <numeric>
#include <string>
#include <vector>

#include "net/ethernet.h"
#include "support/check.h"
#include "support/endian.h"
#include "virtio/net/flow_fields.h"
#include "virtio/net/toeplitz_hash.h"
#include "virtio/net/wire.h"

namespace bothy::virtio {
namespace {

using namespace net_wire;  // NOLINT(google-build-using-namespace)
using Bytes = std::vector<uint8_t>;

// The key and the flows of Microsoft's "Verifying the RSS hash calculation".
constexpr std::array<uint8_t, 40> kKey = {
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
    0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
    0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};

struct Flow {
  const char* source;
  uint16_t source_port;
  const char* destination;
  uint16_t destination_port;
  uint32_t hash_of_addresses;
  uint32_t hash_with_ports;
};
constexpr Flow kFlows4[] = {
    {"66.9.149.187", 2794, "161.142.100.80", 1766, 0x323e8fc2, 0x51ccc178},
    {"199.92.111.2", 14230, "65.69.140.83", 4739, 0xd718262a, 0xc626b0ea},
    {"24.19.198.95", 12898, "12.22.207.184", 38024, 0xd2d0a5de, 0x5c2b394a},
    {"38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xafc7327f},
    {"153.39.163.191", 44251, "202.188.127.2", 1303, 0x5d1809c5, 0x10e828a2},
};
constexpr Flow kFlows6[] = {
    {"3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2cc18cd5, 0x40207d3d},
    {"3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0f0c461c, 0xdde51bbf},
    {"3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, "fe80::200:f8ff:fe21:67cf", 38024, 0x4b61e985,
     0x02d1feef},
};

void Append(Bytes& to, const Bytes& what) { to.insert(to.end(), what.begin(), what.end()); }

Bytes Address(int family, const char* text) {
  Bytes bytes(family == AF_INET ? 4 : 16);
  CHECK(::inet_pton(family, text, bytes.data()) == 1);
  return bytes;
}
Bytes Ethernet(uint16_t type, int tags = 0) {
  Bytes frame(12, 2);
  for (int i = 0; i < tags; ++i) Append(frame, {0x81, 0, 0, 7});
  Append(frame, {static_cast<uint8_t>(type >> 8), static_cast<uint8_t>(type)});
  return frame;
}
Bytes Ports(const Flow& flow) {
  Bytes ports(4);
  StoreBe<uint16_t>(ports.data(), flow.source_port);
  StoreBe<uint16_t>(&ports[2], flow.destination_port);
  return ports;
}
Bytes Frame4(const Flow& flow, uint8_t protocol, int tags = 0, uint16_t fragment = 0) {
  Bytes frame = Ethernet(net::kEthernetIpv4, tags);
  Append(frame, {0x46, 0, 0, 60, 0, 1, 0, 0, 64, protocol, 0, 0});
  StoreBe<uint16_t>(&frame[frame.size() - 6], fragment);
  Append(frame, Address(AF_INET, flow.source));
  Append(frame, Address(AF_INET, flow.destination));
  Append(frame, {1, 1, 1, 1});  // options
  Append(frame, Ports(flow));
  Append(frame, Bytes(20, 9));
  return frame;
}
// `between`: extensions, of which the last one names the protocol.
Bytes Frame6(const Flow& flow, uint8_t next, const Bytes& between = {}, int tags = 0) {
  Bytes frame = Ethernet(net::kEthernetIpv6, tags);
  Append(frame, {0x60, 0, 0, 0, 0, 40, next, 64});
  Append(frame, Address(AF_INET6, flow.source));
  Append(frame, Address(AF_INET6, flow.destination));
  Append(frame, between);
  Append(frame, Ports(flow));
  Append(frame, Bytes(20, 9));
  return frame;
}

// 0 when the frame has none.
uint32_t HashOf(const Bytes& frame, uint32_t types = kHashTypes) {
  const FlowFields fields = FlowFieldsOf(frame, types);
  return fields.size == 0 ? 0 : ToeplitzHash(kKey).Of(fields.input());
}

TEST(ToeplitzHashTest, HashesAsTheVerificationSuiteSays) {
  for (const Flow& flow : kFlows4) {
    SCOPED_TRACE(flow.source);
    for (const uint8_t protocol : {net::kProtocolTcp, net::kProtocolUdp}) {
      for (const int tags : {0, 1, 2}) {
        EXPECT_EQ(HashOf(Frame4(flow, protocol, tags)), flow.hash_with_ports);
        EXPECT_EQ(HashOf(Frame4(flow, protocol, tags), kHashIpv4), flow.hash_of_addresses);
      }
    }
    EXPECT_EQ(HashOf(Frame4(flow, 1)), flow.hash_of_addresses);
  }
  for (const Flow& flow : kFlows6) {
    SCOPED_TRACE(flow.source);
    for (const uint8_t protocol : {net::kProtocolTcp, net::kProtocolUdp}) {
      EXPECT_EQ(HashOf(Frame6(flow, protocol)), flow.hash_with_ports);
      EXPECT_EQ(HashOf(Frame6(flow, protocol, {}, 2)), flow.hash_with_ports);
      EXPECT_EQ(HashOf(Frame6(flow, protocol), kHashIpv6), flow.hash_of_addresses);
    }
    EXPECT_EQ(HashOf(Frame6(flow, 58)), flow.hash_of_addresses);
  }
}

TEST(ToeplitzHashTest, AShortKeyEndsInZeros) {
  Bytes padded(kKey.begin(), kKey.begin() + 7);
  const ToeplitzHash of_seven(padded);
  padded.resize(40);
  const Bytes input(36, 0xA5);
  EXPECT_EQ(of_seven.Of(input), ToeplitzHash(padded).Of(input));
  EXPECT_EQ(ToeplitzHash({}).Of(input), 0U);
}

TEST(FlowFieldsTest, OnlyTheTypesThatAreAskedFor) {
  const Bytes tcp = Frame4(kFlows4[0], net::kProtocolTcp);
  const Bytes udp = Frame4(kFlows4[0], net::kProtocolUdp);
  EXPECT_EQ(FlowFieldsOf(tcp, kHashTypes).size, 12U);
  EXPECT_EQ(FlowFieldsOf(tcp, kHashTcp4).size, 12U);
  EXPECT_EQ(FlowFieldsOf(tcp, kHashUdp4 | kHashIpv4).size, 8U);
  EXPECT_EQ(FlowFieldsOf(tcp, kHashUdp4 | kHashTcp6 | kHashIpv6).size, 0U);
  EXPECT_EQ(FlowFieldsOf(udp, kHashTcp4 | kHashIpv4).size, 8U);
  EXPECT_EQ(FlowFieldsOf(udp, kHashUdp4).size, 12U);
  const Bytes six = Frame6(kFlows6[0], net::kProtocolUdp);
  EXPECT_EQ(FlowFieldsOf(six, kHashUdp6).size, 36U);
  EXPECT_EQ(FlowFieldsOf(six, kHashTcp6 | kHashIpv6).size, 32U);
  EXPECT_EQ(FlowFieldsOf(six, kHashTcp6 | kHashIpv4).size, 0U);
  EXPECT_EQ(FlowFieldsOf(six, 0).size, 0U);
}

TEST(FlowFieldsTest, FragmentsHaveNoPorts) {
  // The first one, one behind it, the last one; not one that mustn't become any.
  for (const uint16_t fragment : {0x2000, 0x2010, 0x0010}) {
    EXPECT_EQ(HashOf(Frame4(kFlows4[0], net::kProtocolUdp, 0, fragment)),
              kFlows4[0].hash_of_addresses);
  }
  EXPECT_EQ(HashOf(Frame4(kFlows4[0], net::kProtocolUdp, 0, 0x4000)), kFlows4[0].hash_with_ports);
  EXPECT_EQ(HashOf(Frame6(kFlows6[0], 44, {17, 0, 0, 1, 0, 0, 0, 1})),
            kFlows6[0].hash_of_addresses);
  // One that is whole (RFC 6946).
  EXPECT_EQ(HashOf(Frame6(kFlows6[0], 44, {17, 0, 0, 0, 0, 0, 0, 1})), kFlows6[0].hash_with_ports);
}

TEST(FlowFieldsTest, LooksBehindExtensions) {
  const uint32_t whole = kFlows6[0].hash_with_ports;
  EXPECT_EQ(HashOf(Frame6(kFlows6[0], 0, {6, 0, 1, 4, 0, 0, 0, 0})), whole);
  Bytes chain = {60, 0, 1, 4, 0, 0, 0, 0};                            // hop by hop
  Append(chain, {43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});  // options, 16 bytes
  Append(chain, {51, 0, 0, 0, 0, 0, 0, 0});                           // routing
  Append(chain, {6, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  EXPECT_EQ(HashOf(Frame6(kFlows6[0], 0, chain)), whole);
  // One that is said to be longer than the frame.
  EXPECT_EQ(HashOf(Frame6(kFlows6[0], 0, {6, 255, 0, 0, 0, 0, 0, 0})),
            kFlows6[0].hash_of_addresses);
}

TEST(FlowFieldsTest, FramesThatEndEarlyOrAreNoIpHaveNoPortsOrNoHash) {
  const Bytes four = Frame4(kFlows4[0], net::kProtocolTcp, 2);
  for (size_t size = 0; size < four.size(); ++size) {
    const uint32_t hash = HashOf(Bytes(four.begin(), four.begin() + static_cast<ptrdiff_t>(size)));
    const bool addresses = size >= 22 + 20;
    const bool ports = size >= 22 + 24 + 4;
    EXPECT_EQ(hash, ports       ? kFlows4[0].hash_with_ports
                    : addresses ? kFlows4[0].hash_of_addresses
                                : 0);
  }
  const Bytes six = Frame6(kFlows6[0], 0, {17, 0, 1, 4, 0, 0, 0, 0});
  for (size_t size = 0; size < six.size(); ++size) {
    const uint32_t hash = HashOf(Bytes(six.begin(), six.begin() + static_cast<ptrdiff_t>(size)));
    const bool ports = size >= 14 + 40 + 8 + 4;
    EXPECT_EQ(hash, ports             ? kFlows6[0].hash_with_ports
                    : size >= 14 + 40 ? kFlows6[0].hash_of_addresses
                                      : 0);
  }
  Bytes wrong = four;
  wrong[22] = 0x44;  // a header of 16 bytes
  EXPECT_EQ(HashOf(wrong), 0U);
  wrong[22] = 0x65;
  EXPECT_EQ(HashOf(wrong), 0U);
  Bytes arp = Ethernet(0x0806);
  Append(arp, Bytes(46, 1));
  EXPECT_EQ(HashOf(arp), 0U);
  Bytes thrice = Ethernet(net::kEthernetIpv4, 3);
  Append(thrice, Bytes(60, 0x45));
  EXPECT_EQ(HashOf(thrice), 0U);
}

// --- the driver's configuration ------------------------------------------------------------------

Bytes Config(uint32_t types, const std::vector<uint16_t>& table, uint16_t unclassified = 0,
             uint16_t transmit_queues = 2, const Bytes& key = {kKey.begin(), kKey.end()}) {
  Bytes config(8);
  StoreLe<uint32_t>(config.data(), types);
  StoreLe<uint16_t>(&config[4], static_cast<uint16_t>(table.size() - 1));
  StoreLe<uint16_t>(&config[6], unclassified);
  const auto append = [&config](uint16_t value) {
    Append(config, {static_cast<uint8_t>(value), static_cast<uint8_t>(value >> 8)});
  };
  for (const uint16_t entry : table) append(entry);
  append(transmit_queues);
  config.push_back(static_cast<uint8_t>(key.size()));
  Append(config, key);
  return config;
}
const std::vector<bool> kTwo = {true, true};

TEST(ReceiveSteeringTest, SteersByTheLowBitsOfTheHash) {
  // Each entry a queue of its own, so that the entry shows.
  std::vector<uint16_t> table(128);
  std::iota(table.begin(), table.end(), uint16_t{0});
  const std::vector<bool> queues(129, true);
  const auto steering = ReceiveSteering::Parse(Config(kHashTypes, table, 128, 5), queues);
  ASSERT_TRUE(steering.has_value());
  EXPECT_EQ(steering->transmit_queues(), 5);
  for (const Flow& flow : kFlows4) {
    EXPECT_EQ(steering->PairOf(Frame4(flow, net::kProtocolTcp)), flow.hash_with_ports % 128);
    EXPECT_EQ(steering->PairOf(Frame4(flow, 1)), flow.hash_of_addresses % 128);
  }
  EXPECT_EQ(steering->PairOf(Ethernet(0x0806)), 128);
  EXPECT_EQ(steering->PairOf({}), 128);
  const auto one = ReceiveSteering::Parse(Config(kHashTypes, {1}), kTwo);
  ASSERT_TRUE(one.has_value());
  EXPECT_EQ(one->PairOf(Frame4(kFlows4[0], net::kProtocolTcp)), 1);
  EXPECT_EQ(one->PairOf(Ethernet(0x0806)), 0);
  // A driver that wants no hashes needs no key.
  const auto none = ReceiveSteering::Parse(Config(0, {0}, 1, 1, {}), kTwo);
  ASSERT_TRUE(none.has_value());
  EXPECT_EQ(none->PairOf(Frame4(kFlows4[0], net::kProtocolTcp)), 1);
}

TEST(ReceiveSteeringTest, RefusesWhatBreaksARule) {
  const auto accepts = [](const Bytes& config, const std::vector<bool>& queues = kTwo) {
    return ReceiveSteering::Parse(config, queues).has_value();
  };
  const Bytes good = Config(kHashTypes, {0, 1, 0, 1});
  ASSERT_TRUE(accepts(good));
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(accepts(Bytes(good.begin(), good.begin() + static_cast<ptrdiff_t>(size))));
  }
  Bytes longer = good;
  longer.push_back(0);
  EXPECT_FALSE(accepts(longer));
  EXPECT_FALSE(accepts(Config(kHashTypes | 0x40, {0, 1})));
  EXPECT_FALSE(accepts(Config(0x80000000, {0, 1})));
  EXPECT_FALSE(accepts(Config(kHashTypes, {0, 1, 0})));
  EXPECT_TRUE(accepts(Config(kHashTypes, std::vector<uint16_t>(128))));
  EXPECT_FALSE(accepts(Config(kHashTypes, std::vector<uint16_t>(256))));
  EXPECT_FALSE(accepts(Config(kHashTypes, std::vector<uint16_t>(65536))));
  EXPECT_FALSE(accepts(Config(kHashTypes, {0, 2})));
  EXPECT_FALSE(accepts(Config(kHashTypes, {0, 0xFFFF})));
  EXPECT_FALSE(accepts(Config(kHashTypes, {0, 1}, 2)));
  EXPECT_FALSE(accepts(Config(kHashTypes, {0, 1}, 0, 0)));
  EXPECT_FALSE(accepts(Config(kHashTypes, {0, 1}, 0, 3)));
  EXPECT_FALSE(accepts(Config(kHashTypes, {0, 1}, 0, 1, {})));
  EXPECT_TRUE(accepts(Config(kHashTypes, {0, 1}, 0, 1, Bytes(16, 1))));
  EXPECT_FALSE(accepts(Config(kHashTypes, {0, 1}, 0, 1, Bytes(41, 1))));
  // A queue that the driver hasn't set up.
  EXPECT_FALSE(accepts(good, {true, false}));
  EXPECT_TRUE(accepts(Config(kHashTypes, {0, 0}), {true, false}));
  EXPECT_FALSE(accepts(Config(kHashTypes, {0, 0}, 1), {true, false}));
}

}  // namespace
}  // namespace bothy::virtio
