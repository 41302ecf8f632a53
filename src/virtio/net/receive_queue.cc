#include "virtio/net/receive_queue.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "support/endian.h"
#include "virtio/net/flow_fields.h"
#include "virtio/net/wire.h"
#include "virtio/queue/iovec_cursor.h"

namespace bothy::virtio {
namespace {

constexpr size_t kHeaderBytes = net_wire::kHeaderBytes;
static_assert(net::kHeaderBytes == kHeaderBytes);
// One system call takes 1024 (IOV_MAX). A backend and TakeShort each add one of their own.
constexpr size_t kMostBuffers = 1022;

}  // namespace

// Until there is room for `bytes`, or nothing more to hold.
absl::Status ReceiveQueue::Hold(size_t bytes) {
  while (held_bytes_ < bytes && (options_.mergeable || held_.empty())) {
    const absl::StatusOr<bool> popped = queue_->Pop(chain_);
    if (!popped.ok()) return WithContext(popped.status(), absl::StrCat("queue ", options_.index));
    if (!*popped) return absl::OkStatus();
    // 5.1.6.3.1: at least the header's bytes; a buffer to be read isn't one to receive into.
    if (chain_.writable_bytes < kHeaderBytes || !chain_.readable.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("queue ", options_.index, ": a receive buffer with ", chain_.writable_bytes,
                       " bytes to write and ", chain_.readable_bytes, " to read"));
    }
    if (chain_.writable.size() > kMostBuffers) {
      return absl::InvalidArgumentError(
          absl::StrCat("queue ", options_.index, ": a receive buffer of too many pieces"));
    }
    if (buffers_.size() + chain_.writable.size() > kMostBuffers) {
      queue_->GiveBack(1);
      return absl::OkStatus();
    }
    held_.push_back({.head = chain_.head,
                     .bytes = static_cast<uint32_t>(chain_.writable_bytes),
                     .buffers = chain_.writable.size()});
    held_bytes_ += chain_.writable_bytes;
    buffers_.insert(buffers_.end(), chain_.writable.begin(), chain_.writable.end());
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> ReceiveQueue::HoldMore(size_t bytes) {
  if (queue_->EnableDoorbell()) {
    const size_t before = held_.size();
    RETURN_IF_ERROR(Hold(bytes));
    if (held_.size() != before) return true;
  }
  ++counters_.starved;
  return false;
}

absl::StatusOr<size_t> ReceiveQueue::Take(net::FrameQueue& from) {
  const size_t longest = kHeaderBytes + options_.longest_frame;
  // Without mergeable buffers the driver's are as long as they have to be (5.1.6.3.1), and what is
  // longer is lost.
  if (held_bytes_ >= longest || (!options_.mergeable && !held_.empty())) {
    return last_frame_ <= held_.front().bytes && held_.size() > 1 ? TakeShort(from)
                                                                  : from.Receive(buffers_);
  }
  own_.resize(kHeaderBytes + net::kLargestFrame);
  const std::array<iovec, 1> into = {{{.iov_base = own_.data(), .iov_len = own_.size()}}};
  ASSIGN_OR_RETURN(waiting_frame_, from.Receive(into));
  return waiting_frame_;
}

// The longest frame takes forty buffers, and to name them costs a system call more than to take a
// short frame does. What comes behind a short one is mostly short.
absl::StatusOr<size_t> ReceiveQueue::TakeShort(net::FrameQueue& from) {
  const Held& first = held_.front();
  const size_t rest = held_bytes_ - first.bytes;
  own_.resize(kHeaderBytes + net::kLargestFrame);
  few_.assign(buffers_.begin(), buffers_.begin() + static_cast<ptrdiff_t>(first.buffers));
  few_.push_back({.iov_base = own_.data(), .iov_len = std::min(rest, own_.size())});
  ASSIGN_OR_RETURN(const size_t bytes, from.Receive(few_));
  if (bytes > first.bytes) {
    (void)CopyTo(std::span(own_).first(bytes - first.bytes),
                 std::span(buffers_).subspan(first.buffers));
  }
  return bytes;
}

bool ReceiveQueue::Wanted(const ReceiveFilter& filter, std::span<const iovec> frame,
                          size_t bytes) const {
  if (filter.passes_all()) return true;
  std::array<uint8_t, kHeaderBytes + ReceiveFilter::kBytesNeeded> start{};
  const size_t there = std::min(bytes, start.size());
  return CopyFrom(frame, std::span(start).first(there)) &&
         filter.Passes(std::span(start).subspan(kHeaderBytes, there - kHeaderBytes));
}

ReceiveQueue& ReceiveQueue::Steer(const Steering& steering, std::span<const iovec> frame,
                                  size_t bytes) {
  std::array<uint8_t, kHeaderBytes + kFlowStartBytes> start;
  const size_t there = std::min(bytes, start.size());
  (void)CopyFrom(frame, std::span(start).first(there));
  return steering(std::span(start).subspan(kHeaderBytes, there - kHeaderBytes));
}

void ReceiveQueue::Use(size_t bytes) {
  size_t chains = 0;
  size_t buffers = 0;
  for (size_t covered = 0; covered < bytes; ++chains) {
    covered += held_[chains].bytes;
    buffers += held_[chains].buffers;
  }
  // Whoever wrote the frame can't know num_buffers; version 1 has it 1 without merging.
  std::array<uint8_t, kHeaderBytes> header{};
  (void)CopyFrom(buffers_, header);
  if (!options_.checksums) header[net_wire::kHeaderFlags] = 0;
  StoreLe<uint16_t>(&header[net_wire::kHeaderBuffers], static_cast<uint16_t>(chains));
  (void)CopyTo(header, buffers_);
  size_t rest = bytes;
  for (size_t i = 0; i < chains; ++i) {
    const size_t part = std::min<size_t>(rest, held_[i].bytes);
    queue_->Fill(held_[i].head, static_cast<uint32_t>(part));
    rest -= part;
    held_bytes_ -= held_[i].bytes;
  }
  // All of a frame's buffers at once (5.1.6.4.1).
  queue_->Publish();
  used_ = true;
  held_.erase(held_.begin(), held_.begin() + static_cast<ptrdiff_t>(chains));
  buffers_.erase(buffers_.begin(), buffers_.begin() + static_cast<ptrdiff_t>(buffers));
}

void ReceiveQueue::Count(size_t bytes) {
  ++counters_.frames;
  counters_.bytes += bytes - kHeaderBytes;
}

absl::StatusOr<bool> ReceiveQueue::Deliver(std::span<const iovec> frame, size_t bytes) {
  RETURN_IF_ERROR(Hold(bytes));
  while (held_bytes_ < bytes) {
    if (!options_.mergeable && !held_.empty()) {
      ++counters_.too_long;
      return true;
    }
    ASSIGN_OR_RETURN(const bool more, HoldMore(bytes));
    if (!more) return false;
  }
  CopyBetween(frame, buffers_, bytes);
  Use(bytes);
  Count(bytes);
  return true;
}

absl::StatusOr<ReceiveQueue::Result> ReceiveQueue::Serve(net::FrameQueue& from,
                                                         const ReceiveFilter& filter,
                                                         const Steering& steering, int frames) {
  for (int taken = 0; taken < frames; ++taken) {
    size_t bytes = waiting_frame_;
    if (bytes == 0) {
      const size_t longest = kHeaderBytes + options_.longest_frame;
      RETURN_IF_ERROR(Hold(longest));
      // Frames of other queues may come in here whether this one has buffers or not.
      if (held_.empty() && steering == nullptr) {
        ASSIGN_OR_RETURN(const bool more, HoldMore(longest));
        if (!more) return Result::kStarved;
      }
      const absl::StatusOr<size_t> received = Take(from);
      if (!received.ok()) {
        // It says so when it is of use again.
        ++counters_.failed;
        return Result::kEmpty;
      }
      bytes = *received;
      if (bytes == 0) return Result::kEmpty;
      last_frame_ = bytes;
    }
    const bool in_own = waiting_frame_ != 0;
    const std::array<iovec, 1> own = {{{.iov_base = own_.data(), .iov_len = bytes}}};
    const std::span<const iovec> frame = in_own ? std::span<const iovec>(own) : buffers_;
    if (bytes <= kHeaderBytes || !Wanted(filter, frame, bytes)) {
      waiting_frame_ = 0;
      ++counters_.filtered;
      continue;
    }
    ReceiveQueue& target = steering == nullptr ? *this : Steer(steering, frame, bytes);
    if (&target == this && !in_own) {
      Use(bytes);
      Count(bytes);
      continue;
    }
    ASSIGN_OR_RETURN(const bool delivered, target.Deliver(frame, bytes));
    if (!delivered) {
      if (!in_own) {
        own_.resize(kHeaderBytes + net::kLargestFrame);
        (void)CopyFrom(frame, std::span(own_).first(bytes));
        waiting_frame_ = bytes;
      }
      return Result::kStarved;
    }
    waiting_frame_ = 0;
    if (&target != this) ++counters_.handed_on;
  }
  return Result::kMore;
}

void ReceiveQueue::GiveBack() {
  queue_->GiveBack(static_cast<uint16_t>(held_.size()));
  held_.clear();
  buffers_.clear();
  held_bytes_ = 0;
}

}  // namespace bothy::virtio
