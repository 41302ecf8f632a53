// What the guest receives (virtio 1.2, 5.10.6): resets first, then the connections that have
// something, in turn.
#include <algorithm>
#include <climits>

#include "absl/strings/str_cat.h"
#include "virtio/queue/iovec_cursor.h"
#include "virtio/vsock/vsock_device.h"

namespace bothy::virtio {

using namespace vsock;  // NOLINT(google-build-using-namespace): all of it is the wire's

namespace {

// Packets and reads in one round of the loop, so that others and a pause get their turn.
constexpr int kTurnsPerRound = 32;
// Buffers of the driver that one read fills: as much as a socket of the host has at once.
constexpr uint32_t kMostBuffers = 64;

}  // namespace

void VsockDevice::ServeReceive() {
  if (!serving() || receive_ == nullptr) return;
  ++rounds_served_;
  int turns = 0;
  bool going = true;
  while (going && (!resets_.empty() || !ready_.empty())) {
    if (turns++ == kTurnsPerRound) {
      rounds_.Add(kReceiveQueue);
      break;
    }
    if (!resets_.empty()) {
      going = SendReset(resets_.front());
      if (!going) break;
      resets_.pop_front();
      ++resets_sent_;
    } else {
      going = ServeConnection(*ready_.front());
    }
  }
  if (broken_) return;
  if (receive_->ShouldInterrupt()) transport_->InterruptQueue(kReceiveQueue);
  if (resets_.empty() && std::exchange(transmit_stalled_, false)) rounds_.Add(kTransmitQueue);
}

bool VsockDevice::PopBuffer() {
  absl::StatusOr<bool> popped = receive_->Pop(chain_);
  if (popped.ok() && !*popped && receive_->EnableDoorbell()) popped = receive_->Pop(chain_);
  absl::Status status = popped.status();
  // A buffer that holds a header and nothing else could never bring data.
  if (popped.ok() && *popped &&
      (chain_.writable_bytes <= PacketHeader::kBytes || !chain_.readable.empty() ||
       chain_.writable.size() > IOV_MAX)) {
    status = absl::InvalidArgumentError(
        absl::StrCat("a receive buffer with ", chain_.writable_bytes, " bytes to write in ",
                     chain_.writable.size(), " pieces and ", chain_.readable_bytes, " to read"));
  }
  if (!status.ok()) {
    Broken(WithContext(status, "receive queue"));
    return false;
  }
  if (!*popped) ++starved_;
  return *popped;
}

bool VsockDevice::SendReset(const PacketHeader& header) {
  if (!PopBuffer()) return false;
  WriteHeader(header);
  return true;
}

bool VsockDevice::Send(Connection& connection, uint16_t operation, uint32_t flags) {
  if (!PopBuffer()) return false;
  PacketHeader header = HeaderFor(connection, operation);
  header.flags = flags;
  WriteHeader(header);
  return true;
}

void VsockDevice::WriteHeader(const PacketHeader& header) {
  (void)CopyTo(header.ToBytes(), chain_.writable);
  receive_->Push(chain_.head, PacketHeader::kBytes);
  ++packets_to_guest_;
}

// The connection may be gone afterwards.
bool VsockDevice::ServeConnection(Connection& connection) {
  if (!SendDue(connection)) return false;
  if (!connection.open() || !connection.reads) {
    NotReady(connection);
    return true;
  }
  return SendData(connection);
}

bool VsockDevice::SendDue(Connection& connection) {
  if (connection.request_due) {
    if (!Send(connection, kRequest)) return false;
    connection.request_due = false;
    connection.asked = true;
  }
  if (connection.response_due) {
    if (!Send(connection, kResponse)) return false;
    connection.response_due = false;
  }
  if (connection.shutdown_due != 0) {
    if (!Send(connection, kShutdown, connection.shutdown_due)) return false;
    connection.shutdown_due = 0;
  }
  if (connection.credit_request_due) {
    if (!Send(connection, kCreditRequest)) return false;
    connection.credit_request_due = false;
  }
  // Every packet says the same beside what else it says.
  return !connection.credit_update_due || Send(connection, kCreditUpdate);
}

bool VsockDevice::SendData(Connection& connection) {
  const uint32_t window = connection.credit();
  if (window == 0) {
    // It says when it has room; asked once, it also says so if that got lost on its side.
    if (!std::exchange(connection.credit_requested, true)) {
      connection.credit_request_due = true;
      return SendDue(connection);
    }
    NotReady(connection);
    return true;
  }
  if (!HoldBuffers(connection, window)) return false;
  uint64_t room = 0;
  for (const Held& held : held_) room += held.room;
  using What = sockets::HostStream::ReadResult::What;
  const sockets::HostStream::ReadResult result = connection.stream().Read(payload_);
  const size_t before = held_.size();
  if (result.what == What::kBytes) UseBuffers(connection, result.bytes);
  receive_->GiveBack(static_cast<uint16_t>(held_.size()));
  switch (result.what) {
    case What::kBytes:
      if (result.bytes == room) {
        connection.buffers = std::min(2 * connection.buffers, kMostBuffers);
        // The others first.
        ready_.splice(ready_.end(), ready_, *connection.ready);
        return true;
      }
      connection.buffers = static_cast<uint32_t>(before - held_.size());
      break;
    case What::kNothing:
      break;
    case What::kEnd:
      connection.host_ended = true;
      connection.reads = false;
      connection.shutdown_due = connection.stream().PeerHasClosed() ? kNoMoreAtAll : kNoMoreSent;
      return true;
    case What::kBroken:
      RemoveWithReset(connection, Going::kAtOnce);
      return true;
  }
  connection.reads = false;
  NotReady(connection);
  connection.stream().AwaitReadable();
  return true;
}

// As many as the connection is expected to fill; at least one, or false.
bool VsockDevice::HoldBuffers(Connection& connection, uint32_t window) {
  held_.clear();
  pieces_.clear();
  payload_.clear();
  while (window != 0 && held_.size() < connection.buffers) {
    if (!PopBuffer()) {
      return !broken_ && !held_.empty();
    }
    BuffersBehind(chain_.writable, PacketHeader::kBytes, behind_);
    if (payload_.size() + behind_.size() > IOV_MAX) {
      receive_->GiveBack(1);
      break;
    }
    uint32_t room = 0;
    for (const iovec& piece : behind_) {
      const auto part = static_cast<uint32_t>(std::min<size_t>(piece.iov_len, window));
      if (part == 0) break;
      payload_.push_back({.iov_base = piece.iov_base, .iov_len = part});
      room += part;
      window -= part;
    }
    held_.push_back({.head = chain_.head,
                     .first_piece = pieces_.size(),
                     .pieces = chain_.writable.size(),
                     .room = room});
    pieces_.insert(pieces_.end(), chain_.writable.begin(), chain_.writable.end());
  }
  return true;
}

// The first `bytes` of payload_ are there.
void VsockDevice::UseBuffers(Connection& connection, size_t bytes) {
  PacketHeader header = HeaderFor(connection, kData);
  size_t used = 0;
  for (size_t left = bytes; left != 0; ++used) {
    const Held& held = held_[used];
    header.length = static_cast<uint32_t>(std::min<size_t>(left, held.room));
    left -= header.length;
    (void)CopyTo(header.ToBytes(), std::span(pieces_).subspan(held.first_piece, held.pieces));
    receive_->Fill(held.head, PacketHeader::kBytes + header.length);
  }
  receive_->Publish();
  connection.CountSent(bytes);
  packets_to_guest_ += used;
  bytes_to_guest_ += bytes;
  held_.erase(held_.begin(), held_.begin() + static_cast<ptrdiff_t>(used));
}

}  // namespace bothy::virtio
