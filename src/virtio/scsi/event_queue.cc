#include "virtio/scsi/event_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "support/endian.h"
#include "virtio/queue/iovec_cursor.h"

namespace bothy::virtio {

void EventQueue::Attach(std::unique_ptr<Virtqueue> queue, bool wants_events,
                        std::function<void()> interrupt) {
  queue_ = std::move(queue);
  wants_events_ = wants_events;
  interrupt_ = std::move(interrupt);
}

void EventQueue::Detach() {
  queue_.reset();
  wants_events_ = false;
  buffers_.clear();
  // A done may send the next event.
  for (Waiting& waiting : std::exchange(waiting_, {})) waiting.done(Outcome::kNoDriver);
  for (Out& out : std::exchange(out_, {})) out.done(Outcome::kNoDriver);
}

absl::Status EventQueue::Resume() {
  paused_ = false;
  return OnDoorbell();
}

uint64_t EventQueue::Send(const ScsiEvent& event, Done done) {
  const uint64_t id = next_id_++;
  if (queue_ == nullptr || !wants_events_) {
    done(Outcome::kNoDriver);
    return id;
  }
  waiting_.push_back({id, event, std::move(done)});
  Deliver();
  return id;
}

void EventQueue::Cancel(uint64_t id) {
  const auto is_it = [id](const auto& entry) { return entry.id == id; };
  Done done;
  if (const auto at = std::find_if(waiting_.begin(), waiting_.end(), is_it); at != waiting_.end()) {
    done = std::move(at->done);
    waiting_.erase(at);
  } else if (const auto sent = std::find_if(out_.begin(), out_.end(), is_it); sent != out_.end()) {
    // The entry stays: the buffer that comes back belongs to it and to no later event.
    done = std::exchange(sent->done, [](Outcome) {});
    sent->id = 0;
  }
  if (done) done(Outcome::kCancelled);
}

absl::Status EventQueue::OnDoorbell() {
  if (queue_ == nullptr || paused_) return absl::OkStatus();
  Chain chain;
  do {
    while (true) {
      ASSIGN_OR_RETURN(const bool popped, queue_->Pop(chain));
      if (!popped) break;
      if (chain.writable_bytes < scsi_wire::kEventBytes || chain.readable_bytes != 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("an event buffer of ", chain.writable_bytes, " bytes"));
      }
      Acknowledge(chain.writable.front().iov_base);
      buffers_.push_back({.head = chain.head, .writable = chain.writable});
    }
  } while (queue_->EnableDoorbell());
  Deliver();
  return absl::OkStatus();
}

void EventQueue::Acknowledge(const void* buffer) {
  if (out_.empty()) return;
  // A driver that gives back other buffers than it got acknowledges in order.
  auto at = std::find_if(out_.begin(), out_.end(),
                         [buffer](const Out& out) { return out.buffer == buffer; });
  if (at == out_.end()) at = out_.begin();
  const Done done = std::move(at->done);
  out_.erase(at);
  done(Outcome::kHandled);
}

void EventQueue::Deliver() {
  bool pushed = false;
  while (queue_ != nullptr && !paused_ && !waiting_.empty() && !buffers_.empty()) {
    Waiting next = std::move(waiting_.front());
    waiting_.pop_front();
    const Buffer buffer = std::move(buffers_.front());
    buffers_.pop_front();
    std::array<uint8_t, scsi_wire::kEventBytes> bytes{};
    StoreLe<uint32_t>(&bytes[0], next.event.event);
    std::copy(next.event.lun.begin(), next.event.lun.end(), &bytes[4]);
    StoreLe<uint32_t>(&bytes[12], next.event.reason);
    CopyTo(bytes, buffer.writable);
    out_.push_back({next.id, buffer.writable.front().iov_base, std::move(next.done)});
    queue_->Push(buffer.head, scsi_wire::kEventBytes);
    pushed = true;
  }
  if (pushed && queue_->ShouldInterrupt()) interrupt_();
}

}  // namespace bothy::virtio
