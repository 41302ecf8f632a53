#include "net/netlink/message.h"

#include <gtest/gtest.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "support/endian.h"

namespace bothy::net {
namespace {

using Bytes = std::vector<uint8_t>;

// A request that asks is laid out like an answer that tells.
Bytes LinkMessage() {
  ifinfomsg header{};
  header.ifi_index = 7;
  header.ifi_flags = IFF_UP;
  LinkRequest message(RTM_NEWLINK, 0, header);
  message.String(IFLA_IFNAME, "br0").Bytes(IFLA_IFALIAS, std::vector<uint8_t>{'x', 'y', 'z'});
  message.Number(IFLA_MTU, 9000).Number(IFLA_MASTER, 3);
  message.Begin(IFLA_LINKINFO).String(IFLA_INFO_KIND, "bridge").End();
  const std::span<const uint8_t> bytes = message.Finish(42);
  return {bytes.begin(), bytes.end()};
}
std::vector<LinkReply> Parse(std::span<const uint8_t> datagram) {
  std::vector<LinkReply> replies;
  ParseLinkReplies(datagram, [&replies](LinkReply& reply) {
    replies.push_back(std::move(reply));
    return true;
  });
  return replies;
}

TEST(NetlinkMessageTest, ReadsWhatALinkIs) {
  Bytes datagram = LinkMessage();
  ASSERT_EQ(datagram.size() % NLMSG_ALIGNTO, 0U);
  const Bytes second = LinkMessage();
  datagram.insert(datagram.end(), second.begin(), second.end());
  const std::vector<LinkReply> replies = Parse(datagram);
  ASSERT_EQ(replies.size(), 2U);
  for (const LinkReply& reply : replies) {
    EXPECT_EQ(reply.sequence, 42U);
    ASSERT_TRUE(reply.link.has_value());
    EXPECT_EQ(reply.link->type, RTM_NEWLINK);
    EXPECT_EQ(reply.link->index, 7);
    EXPECT_EQ(reply.link->flags, static_cast<uint32_t>(IFF_UP));
    EXPECT_EQ(reply.link->name, "br0");
    EXPECT_EQ(reply.link->alias, "xyz");
    EXPECT_EQ(reply.link->mtu, 9000U);
    EXPECT_EQ(reply.link->master, 3);
    EXPECT_EQ(reply.link->kind, "bridge");
  }
}

TEST(NetlinkMessageTest, ReadsStatisticsWhateverTheirLength) {
  const auto parsed = [](size_t bytes) {
    ifinfomsg header{};
    header.ifi_index = 7;
    LinkRequest message(RTM_NEWLINK, 0, header);
    rtnl_link_stats64 statistics{};
    statistics.rx_packets = 1;
    statistics.tx_packets = 2;
    statistics.rx_bytes = 3;
    statistics.tx_bytes = 4;
    statistics.rx_dropped = 5;
    statistics.tx_dropped = 6;
    Bytes value(bytes);
    std::memcpy(value.data(), &statistics, std::min(bytes, sizeof statistics));
    message.Bytes(IFLA_STATS64, value);
    return Parse(message.Finish(1)).at(0).link->statistics;
  };
  for (const size_t bytes :
       {size_t{64}, sizeof(rtnl_link_stats64), sizeof(rtnl_link_stats64) + 8}) {
    const std::optional<LinkStatistics> statistics = parsed(bytes);
    ASSERT_TRUE(statistics.has_value()) << bytes;
    EXPECT_EQ(statistics->received_frames, 1U);
    EXPECT_EQ(statistics->sent_frames, 2U);
    EXPECT_EQ(statistics->received_bytes, 3U);
    EXPECT_EQ(statistics->sent_bytes, 4U);
    EXPECT_EQ(statistics->received_dropped, 5U);
    EXPECT_EQ(statistics->sent_dropped, 6U);
  }
  EXPECT_EQ(parsed(63), std::nullopt);
}

TEST(NetlinkMessageTest, PassesOverWhatIsNoLink) {
  // A bridge that tells of one of its ports.
  Bytes port = LinkMessage();
  port[sizeof(nlmsghdr)] = AF_BRIDGE;
  EXPECT_TRUE(Parse(port).empty());
  Bytes other = LinkMessage();
  StoreLe<uint16_t>(other.data() + offsetof(nlmsghdr, nlmsg_type), RTM_NEWADDR);
  EXPECT_TRUE(Parse(other).empty());
}

TEST(NetlinkMessageTest, ReadsErrorsWithTheirExplanation) {
  // Error, the request's header and payload, and a text (netlink(7)).
  const Bytes request = LinkMessage();
  Bytes message(sizeof(nlmsghdr) + sizeof(int32_t));
  message.insert(message.end(), request.begin(), request.end());
  const std::string text = "because";
  Bytes attribute(sizeof(nlattr));
  StoreLe<uint16_t>(attribute.data(), static_cast<uint16_t>(sizeof(nlattr) + text.size()));
  StoreLe<uint16_t>(attribute.data() + 2, NLMSGERR_ATTR_MSG);
  attribute.insert(attribute.end(), text.begin(), text.end());
  message.insert(message.end(), attribute.begin(), attribute.end());
  nlmsghdr header{};
  header.nlmsg_len = static_cast<uint32_t>(message.size());
  header.nlmsg_type = NLMSG_ERROR;
  header.nlmsg_flags = NLM_F_ACK_TLVS;
  std::memcpy(message.data(), &header, sizeof header);
  StoreLe<uint32_t>(message.data() + sizeof header, static_cast<uint32_t>(-EPERM));
  const std::vector<LinkReply> replies = Parse(message);
  ASSERT_EQ(replies.size(), 1U);
  EXPECT_EQ(replies[0].error, EPERM);
  EXPECT_EQ(replies[0].explanation, text);
}

TEST(NetlinkMessageTest, MalformedOnesEndTheDatagram) {
  const Bytes good = LinkMessage();
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_TRUE(Parse(std::span(good).first(size)).empty()) << size;
  }
  // Any byte may be anything.
  for (size_t at = 0; at < good.size(); ++at) {
    for (const uint8_t value : {0x00, 0x01, 0x7F, 0x80, 0xFF}) {
      Bytes bad = good;
      bad[at] = value;
      EXPECT_LE(Parse(bad).size(), 1U);
    }
  }
}

}  // namespace
}  // namespace bothy::net
