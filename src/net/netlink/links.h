// Links: the network devices of the network namespace that the thread is in, asked for and changed
// over rtnetlink.
//
// The kernel answers in the system call that asks, so nothing here waits. Errors carry what the
// kernel has to say about them; EPERM and EACCES are PermissionDenied.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "net/netlink/message.h"
#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy::net {

// A socket of NETLINK_ROUTE, subscribed to the multicast `groups` (RTMGRP_LINK).
absl::StatusOr<UniqueFd> OpenRouteSocket(uint32_t groups, int flags);

class Links {
 public:
  static absl::StatusOr<Links> Open();

  absl::StatusOr<std::vector<Link>> All();
  // NotFound when there is none.
  absl::StatusOr<Link> ByName(const std::string& name);
  absl::StatusOr<Link> ByIndex(int index);
  absl::StatusOr<LinkStatistics> StatisticsOf(int index);

  absl::Status SetUp(int index, bool up, const std::string& what);
  // `what` is what the caller wants done, for the error: "adding tap0 to br0".
  absl::Status Change(LinkRequest request, const std::string& what);

 private:
  explicit Links(UniqueFd socket) : socket_(std::move(socket)) {}
  // `mask`: of RTEXT_FILTER_*.
  absl::StatusOr<Link> Find(LinkRequest request, const std::string& what, uint32_t mask);
  // Sends, and passes the links that come back to `on_link` until the answer has ended.
  absl::Status Ask(LinkRequest request, const std::string& what,
                   const std::function<void(Link&, bool interrupted)>& on_link);

  UniqueFd socket_;
  uint32_t sequence_ = 0;
};

}  // namespace bothy::net
