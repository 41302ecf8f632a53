#include "virtio/net/transmit_queue.h"

#include "absl/strings/str_cat.h"
#include "virtio/queue/iovec_cursor.h"

namespace bothy::virtio {
namespace {

// What one system call takes (IOV_MAX).
constexpr size_t kMostPieces = 1024;

}  // namespace

absl::StatusOr<std::optional<SendDrop>> TransmitQueue::Prepare() {
  if (!CopyFrom(chain_.readable, header_)) {
    return absl::InvalidArgumentError(absl::StrCat("a frame of ", chain_.readable_bytes,
                                                   " bytes with its header; at least ",
                                                   header_.size(), " are needed"));
  }
  frame_bytes_ = chain_.readable_bytes - header_.size();
  const std::optional<SendDrop> drop = CheckHeader(header_, frame_bytes_, negotiated_);
  if (drop.has_value()) return drop;
  BuffersBehind(chain_.readable, header_.size(), behind_);
  pieces_.assign(1, {.iov_base = header_.data(), .iov_len = header_.size()});
  if (behind_.size() < kMostPieces) {
    pieces_.insert(pieces_.end(), behind_.begin(), behind_.end());
  } else {
    gathered_.resize(frame_bytes_);
    (void)CopyFrom(behind_, gathered_);
    pieces_.push_back({.iov_base = gathered_.data(), .iov_len = gathered_.size()});
  }
  return drop;
}

net::FrameQueue::Sent TransmitQueue::Send(net::FrameQueue& to, const net::Offloads& takes) {
  if (finishing_) return SendFinished(to);
  if (!SoftwareOffload::Needed(header_, takes)) return to.Send(pieces_);
  gathered_.resize(frame_bytes_);
  (void)CopyFrom(behind_, gathered_);
  if (!offload_.Begin(gathered_, header_)) return net::FrameQueue::Sent::kDropped;
  finishing_ = true;
  finished_.clear();
  return SendFinished(to);
}

net::FrameQueue::Sent TransmitQueue::SendFinished(net::FrameQueue& to) {
  while (!finished_.empty() || offload_.Next(finished_)) {
    const std::array<iovec, 1> piece = {
        {{.iov_base = finished_.data(), .iov_len = finished_.size()}}};
    // Of a segment that is lost the others are still of use.
    if (to.Send(piece) == net::FrameQueue::Sent::kLater) return net::FrameQueue::Sent::kLater;
    finished_.clear();
  }
  finishing_ = false;
  return net::FrameQueue::Sent::kYes;
}

absl::StatusOr<TransmitQueue::Result> TransmitQueue::Serve(net::FrameQueue* to,
                                                           const net::Offloads& takes, int frames) {
  queue_->DisableDoorbell();
  for (int taken = 0; taken < frames; ++taken) {
    std::optional<SendDrop> drop;
    if (!waits_) {
      ASSIGN_OR_RETURN(bool popped, queue_->Pop(chain_));
      if (!popped) {
        // A doorbell costs the driver an exit; looking once more costs us next to nothing.
        if (taken != 0) return Result::kLookAgain;
        if (!queue_->EnableDoorbell()) return Result::kEmpty;
        continue;
      }
      ASSIGN_OR_RETURN(drop, Prepare());
    }
    if (!drop.has_value() && to == nullptr) drop = SendDrop::kLink;
    if (!drop.has_value()) {
      switch (Send(*to, takes)) {
        case net::FrameQueue::Sent::kYes:
          ++counters_.frames;
          counters_.bytes += frame_bytes_;
          break;
        case net::FrameQueue::Sent::kLater:
          waits_ = true;
          ++counters_.blocked;
          return Result::kBlocked;
        case net::FrameQueue::Sent::kDropped:
          drop = SendDrop::kBackend;
          break;
      }
    }
    if (drop.has_value()) ++counters_.drops[static_cast<size_t>(*drop)];
    waits_ = false;
    finishing_ = false;
    queue_->Push(chain_.head, 0);
    used_ = true;
  }
  return Result::kMore;
}

void TransmitQueue::GiveBack() {
  if (!std::exchange(waits_, false)) return;
  // One of which segments have gone begins anew: TCP knows what it has had.
  finishing_ = false;
  queue_->GiveBack(1);
}

}  // namespace bothy::virtio
