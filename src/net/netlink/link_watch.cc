#include "net/netlink/link_watch.h"

#include <net/if.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/log.h"

namespace bothy::net {
namespace {

constexpr size_t kDatagramBytes = 64 << 10;
// Read before others get their turn.
constexpr int kDatagramsAtOnce = 64;
// Not in <net/if.h>, whose twin <linux/if.h> it can't be included with.
constexpr uint32_t kLowerUp = 1U << 16;  // IFF_LOWER_UP

}  // namespace

absl::StatusOr<std::unique_ptr<LinkWatch>> LinkWatch::Create(const std::vector<int>& indexes,
                                                             IoLoop& loop,
                                                             std::function<void()> on_change) {
  // Subscribed before it is asked: nothing in between is missed.
  ASSIGN_OR_RETURN(UniqueFd socket, OpenRouteSocket(RTMGRP_LINK, SOCK_NONBLOCK));
  auto watch =
      std::unique_ptr<LinkWatch>(new LinkWatch(std::move(socket), loop, std::move(on_change)));
  for (const int index : indexes) watch->states_[index] = State{};
  RETURN_IF_ERROR(watch->AskAll());
  watch->readiness_->AwaitReadable();
  return watch;
}

LinkWatch::LinkWatch(UniqueFd socket, IoLoop& loop, std::function<void()> on_change)
    : socket_(std::move(socket)), on_change_(std::move(on_change)), datagram_(kDatagramBytes) {
  readiness_ = loop.WatchReadiness(
      socket_.get(), [this] { OnNews(); }, nullptr);
}

absl::Status LinkWatch::AskAll() {
  ASSIGN_OR_RETURN(Links links, Links::Open());
  for (auto& [index, state] : states_) {
    absl::StatusOr<Link> link = links.ByIndex(index);
    if (link.ok()) {
      Note(*link);
    } else if (absl::IsNotFound(link.status())) {
      state = State{};
    } else {
      return link.status();
    }
  }
  return absl::OkStatus();
}

void LinkWatch::Note(const Link& link) {
  const auto found = states_.find(link.index);
  if (found == states_.end()) return;
  State state;
  if (link.type == RTM_NEWLINK) {
    constexpr uint32_t kUp = IFF_UP | kLowerUp;
    state = {.present = true,
             .administratively_up = (link.flags & IFF_UP) != 0,
             .up = (link.flags & kUp) == kUp,
             .master = link.master};
  }
  found->second = state;
}

void LinkWatch::OnNews() {
  const std::map<int, State> before = states_;
  bool drained = false;
  for (int i = 0; i < kDatagramsAtOnce && !drained; ++i) {
    sockaddr_nl from{};
    socklen_t from_size = sizeof from;
    const ssize_t size = ::recvfrom(socket_.get(), datagram_.data(), datagram_.size(), 0,
                                    reinterpret_cast<sockaddr*>(&from), &from_size);
    if (size < 0) {
      if (errno == ENOBUFS) lost_ = true;
      drained = errno == EAGAIN;
      continue;
    }
    if (from.nl_pid != 0) continue;  // not from the kernel
    ParseLinkReplies(std::span(datagram_).first(static_cast<size_t>(size)), [&](LinkReply& reply) {
      if (reply.link) Note(*reply.link);
      return true;
    });
  }
  // What is still in the socket then is older than the answer.
  if (drained && std::exchange(lost_, false)) {
    if (const absl::Status status = AskAll(); !status.ok()) {
      LogWarning("net", absl::StrCat("news of network devices were lost: ",
                                     std::string(status.message())));
    }
  }
  readiness_->AwaitReadable();
  if (states_ != before) on_change_();
}

}  // namespace bothy::net
