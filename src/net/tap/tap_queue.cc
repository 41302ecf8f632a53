#include "net/tap/tap_queue.h"

#include <cerrno>
#include <utility>

#include "net/ethernet.h"

namespace bothy::net {
namespace {

// Frames that Receive drops before everybody else gets a turn.
constexpr int kMostDropsAtOnce = 64;

size_t TotalBytes(std::span<const iovec> buffers) {
  size_t total = 0;
  for (const iovec& buffer : buffers) total += buffer.iov_len;
  return total;
}

}  // namespace

TapQueue::TapQueue(UniqueFd fd, IoLoop& loop, FrameCounters& counters)
    : fd_(std::move(fd)), counters_(counters) {
  readiness_ = loop.WatchReadiness(
      fd_.get(),
      [this] {
        if (on_readable_) on_readable_();
      },
      [this] {
        if (on_writable_) on_writable_();
      });
}

void TapQueue::SetInUse(bool in_use) {
  // One that comes into use is looked at again.
  if (!std::exchange(in_use_, in_use) && in_use) readiness_->AwaitReadable();
}

void TapQueue::SetCallbacks(std::function<void()> on_readable, std::function<void()> on_writable) {
  on_readable_ = std::move(on_readable);
  on_writable_ = std::move(on_writable);
}

FrameQueue::Sent TapQueue::Send(std::span<const iovec> frame) {
  if (!in_use_) {
    counters_.CountSendDrop(Drop::kLinkDown);
    return Sent::kDropped;
  }
  ssize_t written = 0;
  do {
    written = ::writev(fd_.get(), frame.data(), static_cast<int>(frame.size()));
  } while (written < 0 && errno == EINTR);
  if (written >= 0) {
    const auto bytes = static_cast<size_t>(written);
    counters_.CountSent(bytes > kHeaderBytes ? bytes - kHeaderBytes : 0);
    return Sent::kYes;
  }
  switch (errno) {
    case EAGAIN:
      readiness_->AwaitWritable();
      return Sent::kLater;
    case EIO:     // down
    case EBADFD:  // gone
    case ENETDOWN:
      counters_.CountSendDrop(Drop::kLinkDown);
      return Sent::kDropped;
    default:
      counters_.CountSendDrop(Drop::kRefused);
      return Sent::kDropped;
  }
}

absl::StatusOr<size_t> TapQueue::Receive(std::span<const iovec> into) {
  if (!in_use_) return 0;
  const size_t room = TotalBytes(into);
  // A frame that is longer than the buffers loses its end, in silence: the byte after them tells.
  uint8_t beyond = 0;
  buffers_.assign(into.begin(), into.end());
  buffers_.push_back({&beyond, 1});
  for (int i = 0; i < kMostDropsAtOnce; ++i) {
    ssize_t result = 0;
    do {
      result = ::readv(fd_.get(), buffers_.data(), static_cast<int>(buffers_.size()));
    } while (result < 0 && errno == EINTR);
    if (result < 0 && errno == EAGAIN) break;
    // EBADFD and the like: the device is gone, and LinkWatch tells. Nothing is awaited, since that
    // would be over at once, for ever.
    if (result < 0) {
      if (errno == EBADFD || errno == EIO || errno == EFAULT) return 0;
      return ErrnoStatus(errno, "reading a frame from a tap");
    }
    const auto bytes = static_cast<size_t>(result);
    if (bytes > room) {
      counters_.CountReceiveDrop(Drop::kSmallBuffers);
    } else if (bytes < kHeaderBytes + kEthernetHeaderBytes) {
      counters_.CountReceiveDrop(Drop::kRunt);
    } else {
      counters_.CountReceived(bytes - kHeaderBytes);
      return bytes;
    }
  }
  readiness_->AwaitReadable();
  return 0;
}

}  // namespace bothy::net
