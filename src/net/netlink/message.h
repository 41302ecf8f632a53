// rtnetlink messages (netlink(7), rtnetlink(7)): requests are put together here, and what the
// kernel says is taken apart. Links only.
//
// By hand: what bothy needs is a dozen attributes of one kind of message, and Debian has the small
// library for it (libmnl) only as a shared object.
#pragma once

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bothy::net {

// A request about one link, in the order of its parts: header, `struct ifinfomsg`, attributes.
class LinkRequest {
 public:
  // `flags` besides NLM_F_REQUEST. `link.ifi_index` 0: the link is named by an attribute.
  LinkRequest(uint16_t type, uint16_t flags, const ifinfomsg& link);

  LinkRequest& Bytes(uint16_t attribute, std::span<const uint8_t> value);
  LinkRequest& String(uint16_t attribute, std::string_view value);  // with the NUL at its end
  LinkRequest& Number(uint16_t attribute, uint32_t value);
  LinkRequest& Byte(uint16_t attribute, uint8_t value);
  // What is added between the two is inside `attribute`.
  LinkRequest& Begin(uint16_t attribute);
  LinkRequest& End();

  // The finished message.
  [[nodiscard]] std::span<const uint8_t> Finish(uint32_t sequence);

 private:
  std::vector<uint8_t> bytes_;
  std::vector<size_t> open_;  // where nested attributes begin
};

// What went through a link, as its host sees it: what a tap receives its guest has sent.
struct LinkStatistics {
  uint64_t received_frames = 0;
  uint64_t sent_frames = 0;
  uint64_t received_bytes = 0;
  uint64_t sent_bytes = 0;
  uint64_t received_dropped = 0;
  uint64_t sent_dropped = 0;
};

// One link as the kernel describes it.
struct Link {
  uint16_t type = 0;  // RTM_NEWLINK, or RTM_DELLINK: it is gone
  int index = 0;
  uint32_t flags = 0;  // IFF_UP, IFF_LOWER_UP, ...
  std::string name;
  std::string alias;
  std::string kind;  // "bridge", "tun", ...; empty: the kernel doesn't say
  uint32_t mtu = 0;
  int master = 0;                            // index of the bridge that it is a port of; 0: of none
  uint32_t tap_queues = 0;                   // of a tap with several: how many somebody holds
  std::optional<LinkStatistics> statistics;  // where they were asked for
};

// What a message of the kernel's is, for those who asked: links, then how it ended.
struct LinkReply {
  uint32_t sequence = 0;  // of the request; 0: nobody's, but news
  std::optional<Link> link;
  bool interrupted = false;  // links changed while they were listed, so the list is a mixture
  // 0: done, else the error, with what the kernel has to say about it, which may be nothing.
  std::optional<int> error;
  std::string explanation;
};

// Calls `on_reply` for each message in a datagram, in order, until it says false. Messages of other
// kinds are passed over; what is malformed ends the datagram.
void ParseLinkReplies(std::span<const uint8_t> datagram,
                      const std::function<bool(LinkReply&)>& on_reply);

}  // namespace bothy::net
