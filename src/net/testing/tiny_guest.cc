#include "net/testing/tiny_guest.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "net/ethernet.h"
#include "support/check.h"
#include "support/endian.h"

namespace bothy::net {
namespace {

constexpr uint16_t kArp = 0x0806;
constexpr size_t kIpBytes = 20;
constexpr size_t kUdpBytes = 8;
constexpr size_t kTcpBytes = 20;
constexpr size_t kSegmentBytes = 1400;

uint64_t Sum(std::span<const uint8_t> bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i < bytes.size(); ++i) sum += uint64_t{bytes[i]} << (i % 2 == 0 ? 8 : 0);
  return sum;
}
uint16_t Fold(uint64_t sum) {
  while (sum > 0xFFFF) sum = (sum & 0xFFFF) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}
// Of UDP and TCP, with the pseudo header (RFC 9293, 3.1); 0 when the one inside is right.
uint16_t Checksum(uint32_t source, uint32_t destination, uint8_t protocol,
                  std::span<const uint8_t> segment) {
  uint64_t sum = Sum(segment) + protocol + segment.size();
  for (const uint32_t address : {source, destination}) {
    sum += (address >> 16) + (address & 0xFFFF);
  }
  return Fold(sum);
}

}  // namespace

std::optional<Packet> Packet::Parse(std::span<const uint8_t> frame) {
  if (frame.size() < kEthernetHeaderBytes + kIpBytes) return std::nullopt;
  if (LoadBe<uint16_t>(frame.data() + kEthernetTypeOffset) != kEthernetIpv4) return std::nullopt;
  std::span<const uint8_t> ip = frame.subspan(kEthernetHeaderBytes);
  const uint16_t total = LoadBe<uint16_t>(ip.data() + 2);
  CHECK(ip[0] == 0x45 && total >= kIpBytes && total <= ip.size());
  CHECK(Fold(Sum(ip.first(kIpBytes))) == 0);
  Packet packet;
  packet.protocol = ip[9];
  packet.source = LoadBe<uint32_t>(ip.data() + 12);
  packet.destination = LoadBe<uint32_t>(ip.data() + 16);
  const std::span<const uint8_t> segment = ip.subspan(kIpBytes, total - kIpBytes);
  const size_t least = packet.protocol == kUdp ? kUdpBytes : kTcpBytes;
  if ((packet.protocol != kUdp && packet.protocol != kTcp) || segment.size() < least) {
    return std::nullopt;
  }
  if (packet.protocol == kTcp || LoadBe<uint16_t>(segment.data() + 6) != 0) {
    CHECK(Checksum(packet.source, packet.destination, packet.protocol, segment) == 0);
  }
  packet.source_port = LoadBe<uint16_t>(segment.data());
  packet.destination_port = LoadBe<uint16_t>(segment.data() + 2);
  size_t header = kUdpBytes;
  if (packet.protocol == kTcp) {
    packet.sequence = LoadBe<uint32_t>(segment.data() + 4);
    packet.acknowledged = LoadBe<uint32_t>(segment.data() + 8);
    packet.flags = segment[13];
    header = size_t{4} * (segment[12] >> 4);
    CHECK(header >= kTcpBytes && header <= segment.size());
  }
  const std::span<const uint8_t> payload = segment.subspan(header);
  packet.payload.assign(payload.begin(), payload.end());
  return packet;
}

FrameQueue::Sent TinyGuest::SendFrame(std::span<const uint8_t> frame,
                                      std::array<uint8_t, kHeaderBytes> header) {
  // In pieces, as drivers do.
  const size_t half = frame.size() / 2;
  auto* start = const_cast<uint8_t*>(frame.data());
  const std::array<iovec, 3> buffers = {iovec{header.data(), header.size()}, iovec{start, half},
                                        iovec{start + half, frame.size() - half}};
  return queue_.Send(buffers);
}

FrameQueue::Sent TinyGuest::SendPacket(const Packet& packet) {
  const bool tcp = packet.protocol == Packet::kTcp;
  const size_t header = tcp ? kTcpBytes : kUdpBytes;
  FrameBytes frame(kEthernetHeaderBytes + kIpBytes + header + packet.payload.size());
  // Whoever is beyond takes it.
  std::copy(kBroadcast.begin(), kBroadcast.end(), frame.begin());
  std::copy(kMac.begin(), kMac.end(), frame.begin() + 6);
  StoreBe<uint16_t>(frame.data() + kEthernetTypeOffset, kEthernetIpv4);
  uint8_t* ip = frame.data() + kEthernetHeaderBytes;
  ip[0] = 0x45;
  StoreBe<uint16_t>(ip + 2, static_cast<uint16_t>(frame.size() - kEthernetHeaderBytes));
  StoreBe<uint16_t>(ip + 4, next_id_++);
  ip[8] = 64;
  ip[9] = packet.protocol;
  const uint32_t source = packet.source != 0 ? packet.source : address_;
  StoreBe<uint32_t>(ip + 12, source);
  StoreBe<uint32_t>(ip + 16, packet.destination);
  StoreBe<uint16_t>(ip + 10, Fold(Sum(std::span(ip, kIpBytes))));
  const std::span<uint8_t> segment = std::span(frame).subspan(kEthernetHeaderBytes + kIpBytes);
  StoreBe<uint16_t>(segment.data(), packet.source_port);
  StoreBe<uint16_t>(segment.data() + 2, packet.destination_port);
  std::copy(packet.payload.begin(), packet.payload.end(), segment.begin() + header);
  size_t checksum = 6;
  if (tcp) {
    StoreBe<uint32_t>(segment.data() + 4, packet.sequence);
    StoreBe<uint32_t>(segment.data() + 8, packet.acknowledged);
    segment[12] = (kTcpBytes / 4) << 4;
    segment[13] = packet.flags;
    StoreBe<uint16_t>(segment.data() + 14, 0xFFFF);  // window
    checksum = 16;
  } else {
    StoreBe<uint16_t>(segment.data() + 4, static_cast<uint16_t>(segment.size()));
  }
  StoreBe<uint16_t>(segment.data() + checksum,
                    Checksum(source, packet.destination, packet.protocol, segment));
  return SendFrame(frame);
}

void TinyGuest::Answer(std::span<const uint8_t> frame) {
  // A request for our address (RFC 826).
  if (frame.size() < 42 || LoadBe<uint16_t>(frame.data() + kEthernetTypeOffset) != kArp) return;
  if (LoadBe<uint16_t>(frame.data() + 20) != 1) return;
  if (LoadBe<uint32_t>(frame.data() + 38) != address_) return;
  FrameBytes reply(frame.begin(), frame.begin() + 42);
  std::copy(frame.begin() + 6, frame.begin() + 12, reply.begin());
  std::copy(kMac.begin(), kMac.end(), reply.begin() + 6);
  StoreBe<uint16_t>(reply.data() + 20, 2);
  std::copy(kMac.begin(), kMac.end(), reply.begin() + 22);
  std::copy(frame.begin() + 38, frame.begin() + 42, reply.begin() + 28);
  std::copy(frame.begin() + 22, frame.begin() + 32, reply.begin() + 32);
  SendFrame(reply);
}

size_t TinyGuest::TakeAll() {
  size_t count = 0;
  while (true) {
    FrameBytes bytes(kHeaderBytes + kLargestFrame);
    const std::array<iovec, 2> buffers = {iovec{bytes.data(), 30},
                                          iovec{bytes.data() + 30, bytes.size() - 30}};
    const absl::StatusOr<size_t> size = queue_.Receive(buffers);
    CHECK(size.ok());
    if (*size == 0) return count;
    ++count;
    FrameBytes frame(bytes.begin() + kHeaderBytes, bytes.begin() + *size);
    Answer(frame);
    frames_.push_back(std::move(frame));
  }
}

FrameBytes TinyGuest::WaitForFrame(const std::function<bool(std::span<const uint8_t>)>& wanted) {
  while (true) {
    TakeAll();
    const auto found = std::find_if(frames_.begin(), frames_.end(), wanted);
    if (found != frames_.end()) {
      FrameBytes frame = std::move(*found);
      frames_.erase(found);
      return frame;
    }
    loop_.RunUntil([this] { return std::exchange(readable_, false); });
  }
}

Packet TinyGuest::WaitForPacket(const std::function<bool(const Packet&)>& wanted) {
  const FrameBytes frame = WaitForFrame([&wanted](std::span<const uint8_t> candidate) {
    const std::optional<Packet> packet = Packet::Parse(candidate);
    return packet.has_value() && wanted(*packet);
  });
  return *Packet::Parse(frame);
}

TinyConnection::TinyConnection(TinyGuest& guest, const Packet& first)
    : guest_(&guest), template_(first) {}

Packet TinyConnection::Segment(uint8_t flags) const {
  Packet packet = template_;
  packet.flags = flags;
  packet.sequence = next_;
  packet.acknowledged = expected_;
  return packet;
}
bool TinyConnection::IsMine(const Packet& packet) const {
  return packet.protocol == Packet::kTcp && packet.source == template_.destination &&
         packet.source_port == template_.destination_port &&
         packet.destination_port == template_.source_port;
}

TinyConnection TinyConnection::Connect(TinyGuest& guest, uint32_t address, uint16_t port,
                                       uint16_t own_port) {
  Packet first;
  first.protocol = Packet::kTcp;
  first.destination = address;
  first.source_port = own_port;
  first.destination_port = port;
  TinyConnection connection(guest, first);
  guest.SendPacket(connection.Segment(Packet::kSyn));
  const Packet answer = guest.WaitForPacket([&](const Packet& p) { return connection.IsMine(p); });
  CHECK(answer.flags == (Packet::kSyn | Packet::kAck));
  CHECK(answer.acknowledged == ++connection.next_);
  connection.expected_ = answer.sequence + 1;
  connection.acknowledged_ = answer.acknowledged;
  guest.SendPacket(connection.Segment(Packet::kAck));
  return connection;
}

TinyConnection TinyConnection::Accept(TinyGuest& guest, uint16_t port) {
  const Packet syn = guest.WaitForPacket([port](const Packet& packet) {
    return packet.protocol == Packet::kTcp && packet.destination_port == port &&
           packet.flags == Packet::kSyn;
  });
  Packet first;
  first.protocol = Packet::kTcp;
  first.source = syn.destination;
  first.destination = syn.source;
  first.source_port = port;
  first.destination_port = syn.source_port;
  TinyConnection connection(guest, first);
  connection.expected_ = syn.sequence + 1;
  guest.SendPacket(connection.Segment(Packet::kSyn | Packet::kAck));
  ++connection.next_;
  while (connection.acknowledged_ != connection.next_) {
    connection.TakeSegment(
        guest.WaitForPacket([&](const Packet& p) { return connection.IsMine(p); }));
  }
  return connection;
}

void TinyConnection::TakeSegment(const Packet& packet) {
  if ((packet.flags & Packet::kAck) != 0) acknowledged_ = packet.acknowledged;
  const size_t length =
      packet.payload.size() + ((packet.flags & (Packet::kFin | Packet::kSyn)) != 0 ? 1 : 0);
  if (length == 0) return;
  // Something old is acknowledged once more.
  if (packet.sequence == expected_) {
    received_ += packet.payload;
    expected_ += static_cast<uint32_t>(length);
  }
  guest_->SendPacket(Segment(Packet::kAck));
}

void TinyConnection::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    Packet packet = Segment(Packet::kAck);
    packet.payload = bytes.substr(0, kSegmentBytes);
    bytes.remove_prefix(packet.payload.size());
    guest_->SendPacket(packet);
    next_ += static_cast<uint32_t>(packet.payload.size());
    while (acknowledged_ != next_) {
      TakeSegment(guest_->WaitForPacket([this](const Packet& p) { return IsMine(p); }));
    }
  }
}

std::string TinyConnection::Receive(size_t bytes) {
  while (received_.size() < bytes) {
    TakeSegment(guest_->WaitForPacket([this](const Packet& p) { return IsMine(p); }));
  }
  std::string result = received_.substr(0, bytes);
  received_.erase(0, bytes);
  return result;
}

void TinyConnection::Close() {
  guest_->SendPacket(Segment(Packet::kFin | Packet::kAck));
  ++next_;
}

}  // namespace bothy::net
