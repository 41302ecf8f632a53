// DisconnectedBackend: a cable that isn't plugged in, for a card between two networks.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "net/backend.h"

namespace bothy::net {

class DisconnectedBackend final : public Backend {
 public:
  [[nodiscard]] uint16_t queue_pairs() const override { return 1; }
  [[nodiscard]] FrameQueue& queue(uint16_t /*pair*/) override { return queue_; }
  absl::Status UseQueuePairs(uint16_t /*pairs*/) override { return absl::OkStatus(); }
  // What is dropped needn't be finished first.
  [[nodiscard]] Offloads offloads() const override {
    return {.checksum = true, .tso4 = true, .tso6 = true, .ecn = true, .uso = true};
  }
  absl::Status SetReceiveOffloads(const Offloads& /*offloads*/) override {
    return absl::OkStatus();
  }
  [[nodiscard]] uint16_t mtu() const override { return 1500; }
  [[nodiscard]] bool link_up() const override { return false; }
  void SetLinkCallback(std::function<void()> /*on_change*/) override {}
  [[nodiscard]] std::string description() const override { return "nothing"; }
  void Inspect(inspect::Node& node) const override { node.Value("backend", "none"); }

 private:
  class Queue final : public FrameQueue {
   public:
    Sent Send(std::span<const iovec> /*frame*/) override { return Sent::kDropped; }
    absl::StatusOr<size_t> Receive(std::span<const iovec> /*into*/) override { return size_t{0}; }
    void SetCallbacks(std::function<void()> /*on_readable*/,
                      std::function<void()> /*on_writable*/) override {}
    [[nodiscard]] int tap_fd() const override { return -1; }
  };
  Queue queue_;
};

}  // namespace bothy::net
