// TapQueue: one queue of a tap device, whose frames go to and come from the device's buffers
// directly.
#pragma once

#include <sys/uio.h>

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "net/backend.h"
#include "net/frame_counters.h"
#include "support/io_loop.h"
#include "support/unique_fd.h"

namespace bothy::net {

class TapQueue final : public FrameQueue {
 public:
  // `fd` doesn't block. `counters` outlive the queue.
  TapQueue(UniqueFd fd, IoLoop& loop, FrameCounters& counters);

  // Whether frames go through it; one that isn't in use has none to receive.
  void SetInUse(bool in_use);

  Sent Send(std::span<const iovec> frame) override;
  absl::StatusOr<size_t> Receive(std::span<const iovec> into) override;
  void SetCallbacks(std::function<void()> on_readable, std::function<void()> on_writable) override;
  [[nodiscard]] int tap_fd() const override { return fd_.get(); }

 private:
  const UniqueFd fd_;
  FrameCounters& counters_;
  bool in_use_ = true;
  std::function<void()> on_readable_;
  std::function<void()> on_writable_;
  std::vector<iovec> buffers_;  // for Receive
  std::unique_ptr<IoLoop::Readiness> readiness_;
};

}  // namespace bothy::net
