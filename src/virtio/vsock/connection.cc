#include "virtio/vsock/connection.h"

#include <algorithm>
#include <array>

namespace bothy::virtio::vsock {
namespace {

// What is in flight stays far from where counts of 32 bits can't be told apart.
constexpr uint32_t kMostGuestWindow = uint32_t{1} << 30;

}  // namespace

void Connection::Open(const std::string& answer) {
  open_ = true;
  const std::array<iovec, 1> bytes = {
      {{.iov_base = const_cast<char*>(answer.data()), .iov_len = answer.size()}}};
  answer_bytes_ = answer.size();
  stream_->Write(bytes);
}

bool Connection::HearCredit(const PacketHeader& header) {
  // Packets of different threads of the guest may overtake each other: an older count says nothing.
  const uint32_t advance = header.forwarded_bytes - guest_forwarded_;
  if (advance <= kMostGuestWindow) {
    if (advance > sent_ - guest_forwarded_) return false;
    guest_forwarded_ = header.forwarded_bytes;
  }
  guest_window_ = std::min(header.buffer_bytes, kMostGuestWindow);
  if (credit() != 0) credit_requested = false;
  return true;
}

uint32_t Connection::credit() const {
  const uint32_t in_flight = sent_ - guest_forwarded_;
  // A window may shrink below what is in flight.
  return in_flight < guest_window_ ? guest_window_ - in_flight : 0;
}

uint32_t Connection::forwarded() const {
  const uint64_t written = stream_->written();
  return static_cast<uint32_t>(written < answer_bytes_ ? 0 : written - answer_bytes_);
}

bool Connection::MaySend(uint32_t bytes) const {
  const uint32_t kept = received_ - forwarded();
  return kept <= kWindow && bytes <= kWindow - kept;
}

bool Connection::OwesCredit() const {
  // Linux has no more on the way than it would itself have room for, however large our window is
  // ("vsock/virtio: cap TX credit to local buffer size").
  const uint32_t window = std::min(kWindow, guest_window_);
  // More than half of the window looks taken, and a fourth of it isn't.
  return received_ - told_ >= window / 2 && forwarded() - told_ >= std::max(window / 4, 1U);
}

void Connection::TellCredit(PacketHeader& header) {
  told_ = forwarded();
  header.buffer_bytes = kWindow;
  header.forwarded_bytes = told_;
  credit_update_due = false;
}

void Connection::Inspect(inspect::Node& node) const {
  node.Value("guest_port", ports_.guest);
  node.Value("host_port", ports_.host);
  node.Value("state", open_ ? "open" : asked ? "asked" : "to_ask");
  node.Value("guest_sends", guest_sends);
  node.Value("guest_receives", guest_receives);
  node.Value("host_sends", !host_ended);
  node.Value("credit_bytes", credit());
  node.Value("kept_bytes", stream_->kept());
}

}  // namespace bothy::virtio::vsock
