// Datagrams of rtnetlink that the kernel never sent.
#include <cstdint>
#include <span>

#include "net/netlink/message.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  size_t seen = 0;
  bothy::net::ParseLinkReplies(std::span(data, size), [&seen](bothy::net::LinkReply& reply) {
    if (reply.link) seen += reply.link->name.size() + reply.link->alias.size();
    return reply.error.value_or(1) != 0;
  });
  return seen > 2 * size ? -1 : 0;
}
