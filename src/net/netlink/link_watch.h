// LinkWatch: what becomes of a few network devices, as the kernel tells it.
//
// A device is known by its index, which the kernel doesn't give to another one soon, and never
// while somebody holds it. What was missed because too much happened at once is asked for again.
//
// Loop thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "net/netlink/links.h"
#include "support/io_loop.h"
#include "support/status.h"
#include "support/unique_fd.h"

namespace bothy::net {

class LinkWatch {
 public:
  struct State {
    bool present = false;
    bool administratively_up = false;
    bool up = false;  // that, and with carrier
    int master = 0;   // index of the bridge that it is a port of; 0: of none

    friend bool operator==(const State&, const State&) = default;
  };

  // `on_change` is called from the loop whenever one of the states has changed.
  static absl::StatusOr<std::unique_ptr<LinkWatch>> Create(const std::vector<int>& indexes,
                                                           IoLoop& loop,
                                                           std::function<void()> on_change);
  LinkWatch(const LinkWatch&) = delete;
  LinkWatch& operator=(const LinkWatch&) = delete;

  // Of one of the devices that are watched.
  [[nodiscard]] const State& state(int index) const { return states_.at(index); }

 private:
  LinkWatch(UniqueFd socket, IoLoop& loop, std::function<void()> on_change);
  absl::Status AskAll();
  void OnNews();
  void Note(const Link& link);

  const UniqueFd socket_;
  const std::function<void()> on_change_;
  std::map<int, State> states_;
  bool lost_ = false;  // some news, since there was no room for them
  std::vector<uint8_t> datagram_;
  std::unique_ptr<IoLoop::Readiness> readiness_;
};

}  // namespace bothy::net
