// What the guest sends (virtio 1.2, 5.10.6): packets are read once, checked, and acted on.
#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "sockets/connect_line.h"
#include "support/unix_socket.h"
#include "virtio/queue/iovec_cursor.h"
#include "virtio/vsock/vsock_device.h"

namespace bothy::virtio {

using namespace vsock;  // NOLINT(google-build-using-namespace): all of it is the wire's

namespace {

// Taken in one round of the loop, so that others and a pause get their turn.
constexpr int kPacketsPerRound = 128;
// Resets that may wait for the driver's buffers; a packet causes one at most.
constexpr size_t kMostResets = 256;

}  // namespace

void VsockDevice::ServeTransmit() {
  if (!serving() || transmit_ == nullptr) return;
  transmit_->DisableDoorbell();
  bool look_again = false;
  for (int taken = 0;; ++taken) {
    if (resets_.size() >= kMostResets) {
      transmit_stalled_ = true;
      break;
    }
    if (taken == kPacketsPerRound) {
      look_again = true;
      break;
    }
    const absl::StatusOr<bool> popped = transmit_->Pop(chain_);
    if (popped.ok() && !*popped) {
      // A doorbell costs the driver an exit; looking once more costs us next to nothing.
      look_again = taken != 0;
      if (!look_again && transmit_->EnableDoorbell()) continue;
      break;
    }
    const absl::Status taken_in = popped.ok() ? TakePacket(chain_) : popped.status();
    if (!taken_in.ok()) return Broken(WithContext(taken_in, "transmit queue"));
    transmit_->Push(chain_.head, 0);
  }
  if (transmit_->ShouldInterrupt()) transport_->InterruptQueue(kTransmitQueue);
  if (look_again) rounds_.Add(kTransmitQueue);
  ServeReceive();
}

absl::Status VsockDevice::TakePacket(const Chain& chain) {
  std::array<uint8_t, PacketHeader::kBytes> bytes{};
  if (!CopyFrom(chain.readable, bytes)) {
    return absl::InvalidArgumentError(absl::StrCat("a packet of ", chain.readable_bytes,
                                                   " bytes; its header alone has ", bytes.size()));
  }
  ++packets_from_guest_;
  const PacketHeader header = PacketHeader::Parse(bytes);
  // 5.10.6.4.1: what we don't know is reset, and a reset never is.
  if (header.type != kTypeStream || header.source_cid != options_.guest_cid ||
      header.destination_cid != kHostCid) {
    ReplyReset(header);
    return absl::OkStatus();
  }
  const auto found =
      connections_.find({.guest = header.source_port, .host = header.destination_port});
  if (found != connections_.end() && (found->second->open() || found->second->asked)) {
    OnGuestPacket(*found->second, header, chain);
  } else if (found == connections_.end() && header.operation == kRequest) {
    OnGuestRequest(header);
  } else {
    ReplyReset(header);
  }
  return absl::OkStatus();
}

void VsockDevice::ReplyReset(const PacketHeader& to) {
  if (to.operation == kReset) return;
  resets_.push_back({.source_cid = to.destination_cid,
                     .destination_cid = options_.guest_cid,
                     .source_port = to.destination_port,
                     .destination_port = to.source_port,
                     .type = to.type,
                     .operation = kReset});
}

void VsockDevice::OnGuestRequest(const PacketHeader& header) {
  const std::optional<std::string> path = ports_.PathFor(header.destination_port);
  const bool room = connections() < kMostConnections;
  absl::StatusOr<UniqueFd> socket = path.has_value() && room
                                        ? ConnectUnix(*path, ConnectMode::kNonBlocking)
                                        : absl::ResourceExhaustedError("no such port, or no room");
  if (!socket.ok()) {
    ++refused_;
    return ReplyReset(header);
  }
  ++connected_by_guest_;
  Connection& connection =
      AddConnection({.guest = header.source_port, .host = header.destination_port},
                    /*open=*/true, *std::move(socket));
  (void)connection.HearCredit(header);
  connection.response_due = true;
  connection.reads = true;
  MarkReady(connection);
}

void VsockDevice::OnGuestPacket(Connection& connection, const PacketHeader& header,
                                const Chain& chain) {
  if (header.operation == kReset) return Remove(connection, Going::kWhenRead);
  if (!connection.HearCredit(header)) return RemoveWithReset(connection, Going::kAtOnce);
  switch (header.operation) {
    case kResponse:
      if (connection.open()) return RemoveWithReset(connection, Going::kAtOnce);
      ++connected_by_host_;
      connection.Open(sockets::ConnectAnswer(connection.ports().host));
      if (connection.stream().broken()) return RemoveWithReset(connection, Going::kAtOnce);
      connection.reads = true;
      return MarkReady(connection);
    case kData:
      return OnGuestData(connection, header, chain);
    case kShutdown:
      return OnGuestShutdown(connection, header.flags);
    case kCreditRequest:
      connection.credit_update_due = true;
      return MarkReady(connection);
    case kCreditUpdate:
      // Data that waits for it.
      if (connection.reads) MarkReady(connection);
      return;
    default:
      return RemoveWithReset(connection, Going::kAtOnce);
  }
}

void VsockDevice::OnGuestData(Connection& connection, const PacketHeader& header,
                              const Chain& chain) {
  if (!connection.open() || !connection.guest_sends ||
      header.length > chain.readable_bytes - PacketHeader::kBytes ||
      !connection.MaySend(header.length)) {
    return RemoveWithReset(connection, Going::kAtOnce);
  }
  BuffersBehind(chain.readable, PacketHeader::kBytes, behind_);
  uint64_t left = header.length;
  size_t count = 0;
  for (iovec& buffer : behind_) {
    if (left == 0) break;
    buffer.iov_len = std::min<uint64_t>(buffer.iov_len, left);
    left -= buffer.iov_len;
    ++count;
  }
  bytes_from_guest_ += header.length;
  connection.CountReceived(header.length);
  connection.stream().Write({behind_.data(), count});
  // The program has gone; the guest's last words have no reader.
  if (connection.stream().broken()) return RemoveWithReset(connection, Going::kAtOnce);
  if (connection.OwesCredit()) {
    connection.credit_update_due = true;
    MarkReady(connection);
  }
  if (connection.reads) MarkReady(connection);
}

void VsockDevice::OnGuestShutdown(Connection& connection, uint32_t flags) {
  if (!connection.open()) return RemoveWithReset(connection, Going::kAtOnce);
  if ((flags & kNoMoreSent) != 0 && std::exchange(connection.guest_sends, false)) {
    connection.stream().EndWriting();
  }
  if ((flags & kNoMoreReceived) != 0 && std::exchange(connection.guest_receives, false)) {
    connection.reads = false;
    connection.stream().EndReading();
  }
  // 5.10.6.5: that is the end of it, which the peer confirms.
  if (!connection.guest_sends && !connection.guest_receives) {
    RemoveWithReset(connection, Going::kWhenRead);
  }
}

}  // namespace bothy::virtio
