#include "support/direct_transfers.h"

#include <time.h>

#include <algorithm>

namespace bothy {
namespace {

// Calls of the queue that are done with, before it forgets them.
constexpr size_t kMostDone = 256;

uint64_t TotalBytes(std::span<const iovec> buffers) {
  uint64_t total = 0;
  for (const iovec& buffer : buffers) total += buffer.iov_len;
  return total;
}

}  // namespace

int64_t DirectTransfers::CoarseNow() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

bool DirectTransfers::Take(FileCall& call) {
  if (call.kind == FileCall::Kind::kRead) {
    if (!empty() && TotalBytes(call.buffers) >= kLargeBytes) {
      call.elsewhere = true;
      return false;
    }
    if (reads_to_skip_ != 0) {
      --reads_to_skip_;
      return false;
    }
  } else if (call.kind != FileCall::Kind::kWrite || now_() < no_writes_until_) {
    return false;
  }
  queue_.push_back(call);
  return true;
}

bool DirectTransfers::next_is_large() const {
  return TotalBytes(queue_[next_].buffers) >= kLargeBytes;
}

bool DirectTransfers::RunOne(FileCall& left) {
  const FileCall call = queue_[next_++];
  // Completions add to it, so that it may never be empty.
  if (next_ == queue_.size() || next_ == kMostDone) {
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(next_));
    next_ = 0;
  }
  if (call.kind == FileCall::Kind::kWrite) {
    Write(call);
    return true;
  }
  if (Read(call)) return true;
  left = call;
  return false;
}

bool DirectTransfers::Read(const FileCall& call) {
  const int64_t result = call.Make(RWF_NOWAIT);
  if (result == -EAGAIN || result == -EOPNOTSUPP) {
    miss_streak_ = std::min(2 * miss_streak_ + 1, kMostReadsToSkip);
    reads_to_skip_ = miss_streak_;
    return false;
  }
  miss_streak_ = 0;
  call.op->Complete(result);
  return true;
}

void DirectTransfers::Write(const FileCall& call) {
  const int64_t start = now_();
  const int64_t result = call.Make();
  const int64_t end = now_();
  if (end - start >= kSlowWriteMs) {
    no_writes_until_ = end + next_pause_ms_;
    next_pause_ms_ = std::min(2 * next_pause_ms_, kLongestPauseMs);
  } else if (next_pause_ms_ > kShortestPauseMs) {
    --next_pause_ms_;
  }
  call.op->Complete(result);
}

}  // namespace bothy
