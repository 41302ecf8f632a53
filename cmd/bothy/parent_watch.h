// --die-with-parent: hears of the death of the process that started this one.
#pragma once

#include <functional>
#include <memory>

#include "support/event_loop.h"
#include "support/status.h"

namespace bothy {

// Calls its callback once on the loop's thread when the parent process has ended. A pidfd, not
// PR_SET_PDEATHSIG: that fires when the parent's *thread* ends, which in Go programs is any time.
class ParentWatch {
 public:
  static absl::StatusOr<std::unique_ptr<ParentWatch>> Create(EventLoop& loop,
                                                             std::function<void()> on_death);
  ~ParentWatch();

 private:
  class Impl;
  explicit ParentWatch(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bothy
