// The engines of IoLoop. Only io_loop.cc and the engines themselves include this.
#pragma once

#include <memory>

#include "support/io_loop.h"
#include "support/status.h"

namespace bothy {

// FailedPrecondition when the host hasn't io_uring or forbids it.
absl::StatusOr<std::unique_ptr<IoLoop>> CreateUringLoop(const IoLoop::Options& options);
absl::StatusOr<std::unique_ptr<IoLoop>> CreateThreadPoolLoop(const IoLoop::Options& options);

}  // namespace bothy
