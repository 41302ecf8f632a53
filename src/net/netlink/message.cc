#include "net/netlink/message.h"

#include <linux/if_link.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

namespace bothy::net {
namespace {

constexpr size_t Align(size_t size) {
  return (size + NLMSG_ALIGNTO - 1) & ~size_t{NLMSG_ALIGNTO - 1};
}

template <typename T>
void Append(std::vector<uint8_t>& bytes, const T& value) {
  const size_t end = bytes.size();
  bytes.resize(end + sizeof value);
  std::memcpy(bytes.data() + end, &value, sizeof value);
}

template <typename T>
std::optional<T> Take(std::span<const uint8_t> bytes) {
  if (bytes.size() < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

// Calls `on_attribute` for each attribute; false when they don't add up.
bool ForEachAttribute(
    std::span<const uint8_t> bytes,
    const std::function<void(uint16_t type, std::span<const uint8_t> value)>& on_attribute) {
  while (bytes.size() >= sizeof(nlattr)) {
    const auto header = *Take<nlattr>(bytes);
    if (header.nla_len < sizeof header || header.nla_len > bytes.size()) return false;
    on_attribute(header.nla_type & NLA_TYPE_MASK,
                 bytes.subspan(sizeof header, header.nla_len - sizeof header));
    bytes = bytes.subspan(std::min(Align(header.nla_len), bytes.size()));
  }
  return true;
}

// Up to the NUL, which need not be there.
std::string Text(std::span<const uint8_t> value) {
  const auto end = std::find(value.begin(), value.end(), 0);
  return {value.begin(), end};
}

void ParseKind(std::span<const uint8_t> info, Link& link) {
  std::span<const uint8_t> data;
  ForEachAttribute(info, [&](uint16_t attribute, std::span<const uint8_t> value) {
    if (attribute == IFLA_INFO_KIND) link.kind = Text(value);
    if (attribute == IFLA_INFO_DATA) data = value;
  });
  if (link.kind != "tun") return;  // each kind has numbers of its own
  ForEachAttribute(data, [&](uint16_t attribute, std::span<const uint8_t> value) {
    if (attribute == IFLA_TUN_NUM_QUEUES || attribute == IFLA_TUN_NUM_DISABLED_QUEUES) {
      link.tap_queues += Take<uint32_t>(value).value_or(0);
    }
  });
}

// `struct rtnl_link_stats64`, of which newer kernels have a longer one.
std::optional<LinkStatistics> ParseStatistics(std::span<const uint8_t> value) {
  struct Head {
    uint64_t received_frames, sent_frames, received_bytes, sent_bytes;
    uint64_t received_errors, sent_errors, received_dropped, sent_dropped;
  };
  const auto head = Take<Head>(value);
  if (!head) return std::nullopt;
  return LinkStatistics{.received_frames = head->received_frames,
                        .sent_frames = head->sent_frames,
                        .received_bytes = head->received_bytes,
                        .sent_bytes = head->sent_bytes,
                        .received_dropped = head->received_dropped,
                        .sent_dropped = head->sent_dropped};
}

std::optional<Link> ParseLink(uint16_t type, std::span<const uint8_t> payload) {
  const auto header = Take<ifinfomsg>(payload);
  // A bridge tells of its ports with the same message, of another family.
  if (!header || header->ifi_family != AF_UNSPEC || header->ifi_index <= 0) return std::nullopt;
  Link link;
  link.type = type;
  link.index = header->ifi_index;
  link.flags = header->ifi_flags;
  const bool sound = ForEachAttribute(
      payload.subspan(sizeof *header), [&](uint16_t attribute, std::span<const uint8_t> value) {
        switch (attribute) {
          case IFLA_IFNAME:
            link.name = Text(value);
            break;
          case IFLA_IFALIAS:
            link.alias = Text(value);
            break;
          case IFLA_MTU:
            link.mtu = Take<uint32_t>(value).value_or(0);
            break;
          case IFLA_MASTER:
            link.master = static_cast<int>(Take<uint32_t>(value).value_or(0));
            break;
          case IFLA_STATS64:
            link.statistics = ParseStatistics(value);
            break;
          case IFLA_LINKINFO:
            ParseKind(value, link);
            break;
          default:
            break;
        }
      });
  if (!sound) return std::nullopt;
  return link;
}

// The error itself, the request's header, and, unless capped is said, the rest of the request; then
// attributes.
void ParseError(const nlmsghdr& header, std::span<const uint8_t> payload, LinkReply& reply) {
  const auto error = Take<nlmsgerr>(payload);
  if (!error || error->error > 0) return;
  // -error, of which there is one value too many.
  reply.error = static_cast<int>(0U - static_cast<unsigned>(error->error));
  if ((header.nlmsg_flags & NLM_F_ACK_TLVS) == 0) return;
  size_t skip = sizeof *error;
  if ((header.nlmsg_flags & NLM_F_CAPPED) == 0) {
    if (error->msg.nlmsg_len < sizeof(nlmsghdr)) return;
    skip += Align(error->msg.nlmsg_len) - sizeof(nlmsghdr);
  }
  if (skip > payload.size()) return;
  ForEachAttribute(payload.subspan(skip), [&](uint16_t type, std::span<const uint8_t> value) {
    if (type == NLMSGERR_ATTR_MSG) reply.explanation = Text(value);
  });
}

}  // namespace

LinkRequest::LinkRequest(uint16_t type, uint16_t flags, const ifinfomsg& link) {
  nlmsghdr header{};
  header.nlmsg_type = type;
  header.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
  Append(bytes_, header);
  Append(bytes_, link);
}

LinkRequest& LinkRequest::Bytes(uint16_t attribute, std::span<const uint8_t> value) {
  nlattr header{};
  header.nla_type = attribute;
  header.nla_len = static_cast<uint16_t>(sizeof header + value.size());
  Append(bytes_, header);
  bytes_.insert(bytes_.end(), value.begin(), value.end());
  bytes_.resize(Align(bytes_.size()));
  return *this;
}
LinkRequest& LinkRequest::String(uint16_t attribute, std::string_view value) {
  const std::string text(value);
  return Bytes(attribute,
               std::span(reinterpret_cast<const uint8_t*>(text.c_str()), text.size() + 1));
}
LinkRequest& LinkRequest::Number(uint16_t attribute, uint32_t value) {
  return Bytes(attribute, std::span(reinterpret_cast<const uint8_t*>(&value), sizeof value));
}
LinkRequest& LinkRequest::Byte(uint16_t attribute, uint8_t value) {
  return Bytes(attribute, std::span(&value, 1));
}
LinkRequest& LinkRequest::Begin(uint16_t attribute) {
  open_.push_back(bytes_.size());
  return Bytes(static_cast<uint16_t>(attribute | NLA_F_NESTED), {});
}
LinkRequest& LinkRequest::End() {
  const size_t start = open_.back();
  open_.pop_back();
  const auto size = static_cast<uint16_t>(bytes_.size() - start);
  std::memcpy(bytes_.data() + start + offsetof(nlattr, nla_len), &size, sizeof size);
  return *this;
}

std::span<const uint8_t> LinkRequest::Finish(uint32_t sequence) {
  const auto size = static_cast<uint32_t>(bytes_.size());
  std::memcpy(bytes_.data() + offsetof(nlmsghdr, nlmsg_len), &size, sizeof size);
  std::memcpy(bytes_.data() + offsetof(nlmsghdr, nlmsg_seq), &sequence, sizeof sequence);
  return bytes_;
}

void ParseLinkReplies(std::span<const uint8_t> datagram,
                      const std::function<bool(LinkReply&)>& on_reply) {
  while (datagram.size() >= sizeof(nlmsghdr)) {
    const auto header = *Take<nlmsghdr>(datagram);
    if (header.nlmsg_len < sizeof header || header.nlmsg_len > datagram.size()) return;
    const std::span<const uint8_t> payload =
        datagram.subspan(sizeof header, header.nlmsg_len - sizeof header);
    LinkReply reply;
    reply.sequence = header.nlmsg_seq;
    reply.interrupted = (header.nlmsg_flags & NLM_F_DUMP_INTR) != 0;
    switch (header.nlmsg_type) {
      case RTM_NEWLINK:
      case RTM_DELLINK:
        reply.link = ParseLink(header.nlmsg_type, payload);
        break;
      case NLMSG_ERROR:
        ParseError(header, payload, reply);
        break;
      case NLMSG_DONE: {
        const int32_t result = Take<int32_t>(payload).value_or(0);
        reply.error = result < 0 ? static_cast<int>(0U - static_cast<unsigned>(result)) : 0;
        break;
      }
      default:
        break;
    }
    if ((reply.link || reply.error) && !on_reply(reply)) return;
    datagram = datagram.subspan(std::min(Align(header.nlmsg_len), datagram.size()));
  }
}

}  // namespace bothy::net
