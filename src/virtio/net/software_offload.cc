#include "virtio/net/software_offload.h"

#include <algorithm>
#include <array>

#include "net/ethernet.h"
#include "support/endian.h"
#include "virtio/net/wire.h"

namespace bothy::virtio {
namespace {

// IPv4 (RFC 791): offsets in its header.
constexpr size_t kIpv4Bytes = 20;
constexpr size_t kIpv4Length = 2;
constexpr size_t kIpv4Id = 4;
constexpr size_t kIpv4Protocol = 9;
constexpr size_t kIpv4Checksum = 10;
constexpr size_t kIpv4Addresses = 12;
// IPv6 (RFC 8200).
constexpr size_t kIpv6Bytes = 40;
constexpr size_t kIpv6Length = 4;
constexpr size_t kIpv6Addresses = 8;
// TCP (RFC 9293) and UDP (RFC 768).
constexpr size_t kTcpBytes = 20;
constexpr size_t kTcpSequence = 4;
constexpr size_t kTcpOffset = 12;
constexpr size_t kTcpFlags = 13;
constexpr size_t kTcpChecksum = 16;
constexpr uint8_t kTcpFin = 0x01;
constexpr uint8_t kTcpPush = 0x08;
constexpr uint8_t kTcpReduced = 0x80;  // CWR
constexpr size_t kUdpBytes = 8;
constexpr size_t kUdpLength = 4;
constexpr size_t kUdpChecksum = 6;

// Sums of 16-bit words (RFC 1071), not folded.
uint64_t Sum(std::span<const uint8_t> bytes) {
  uint64_t sum = 0;
  size_t i = 0;
  for (; i + 1 < bytes.size(); i += 2) sum += LoadBe<uint16_t>(&bytes[i]);
  if (i < bytes.size()) sum += uint64_t{bytes[i]} << 8;
  return sum;
}
uint16_t Checksum(uint64_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xFFFF) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

}  // namespace

bool SoftwareOffload::Needed(const FrameHeader& header, const net::Offloads& takes) {
  const uint8_t type = header[net_wire::kHeaderGsoType];
  if ((type & net_wire::kGsoEcn) != 0 && !takes.ecn) return true;
  switch (type & ~net_wire::kGsoEcn) {
    case net_wire::kGsoTcp4:
      return !takes.tso4;
    case net_wire::kGsoTcp6:
      return !takes.tso6;
    case net_wire::kGsoUdp:
      return !takes.uso;
    default:
      return (header[net_wire::kHeaderFlags] & net_wire::kNeedsChecksum) != 0 && !takes.checksum;
  }
}

bool SoftwareOffload::FindHeaders(uint8_t type, size_t checksum_start, size_t checksum_offset) {
  udp_ = type == net_wire::kGsoUdp;
  network_ = net::kEthernetHeaderBytes;
  if (frame_.size() < net::kEthernetHeaderBytes + 2 * net::kVlanTagBytes + kIpv4Bytes) return false;
  auto ether_type = LoadBe<uint16_t>(&frame_[network_ - 2]);
  for (int tags = 0;
       tags < 2 && (ether_type == net::kEthernetVlan || ether_type == net::kEthernetServiceVlan);
       ++tags) {
    network_ += net::kVlanTagBytes;
    ether_type = LoadBe<uint16_t>(&frame_[network_ - 2]);
  }
  six_ = ether_type == net::kEthernetIpv6;
  const size_t network_bytes = six_ ? kIpv6Bytes : kIpv4Bytes;
  if (!six_ && ether_type != net::kEthernetIpv4) return false;
  if (type == net_wire::kGsoTcp4 && six_) return false;
  if (type == net_wire::kGsoTcp6 && !six_) return false;
  transport_ = checksum_start;
  const size_t transport_bytes = udp_ ? kUdpBytes : kTcpBytes;
  if (transport_ < network_ + network_bytes || transport_ + transport_bytes > frame_.size()) {
    return false;
  }
  if (!six_) {
    if (transport_ != network_ + size_t{4} * (frame_[network_] & 0xF)) return false;
    const uint8_t protocol = udp_ ? net::kProtocolUdp : net::kProtocolTcp;
    if (frame_[network_ + kIpv4Protocol] != protocol) return false;
  }
  if (checksum_offset != (udp_ ? kUdpChecksum : kTcpChecksum)) return false;
  payload_ = transport_ + (udp_ ? kUdpBytes : size_t{4} * (frame_[transport_ + kTcpOffset] >> 4));
  return payload_ >= transport_ + transport_bytes && payload_ <= frame_.size();
}

bool SoftwareOffload::Begin(std::span<uint8_t> frame, const FrameHeader& header) {
  frame_ = frame;
  done_ = 0;
  count_ = 0;
  ended_ = true;
  const size_t start = LoadLe<uint16_t>(&header[net_wire::kHeaderChecksumStart]);
  const size_t offset = LoadLe<uint16_t>(&header[net_wire::kHeaderChecksumOffset]);
  if (start + offset + sizeof(uint16_t) > frame.size()) return false;
  const auto type = static_cast<uint8_t>(header[net_wire::kHeaderGsoType] & ~net_wire::kGsoEcn);
  segments_ = type != net_wire::kGsoNone;
  if (segments_) {
    segment_bytes_ = LoadLe<uint16_t>(&header[net_wire::kHeaderGsoSize]);
    if (segment_bytes_ < kLeastSegment || !FindHeaders(type, start, offset)) return false;
  } else if ((header[net_wire::kHeaderFlags] & net_wire::kNeedsChecksum) != 0) {
    // The field holds the pseudo header's sum. 0 means "none" for UDP, and is as good as 0xFFFF.
    const uint16_t sum = Checksum(Sum(frame.subspan(start)));
    StoreBe<uint16_t>(&frame[start + offset], sum == 0 ? uint16_t{0xFFFF} : sum);
  }
  ended_ = false;
  return true;
}

void SoftwareOffload::FinishHeaders(std::span<uint8_t> segment, size_t payload_bytes) const {
  const bool first = done_ == 0;
  const bool last = payload_ + done_ + payload_bytes == frame_.size();
  const size_t transport_bytes = segment.size() - transport_;
  uint64_t pseudo = (udp_ ? net::kProtocolUdp : net::kProtocolTcp) + transport_bytes;
  if (six_) {
    StoreBe<uint16_t>(&segment[network_ + kIpv6Length],
                      static_cast<uint16_t>(segment.size() - network_ - kIpv6Bytes));
    pseudo += Sum(segment.subspan(network_ + kIpv6Addresses, 32));
  } else {
    StoreBe<uint16_t>(&segment[network_ + kIpv4Length],
                      static_cast<uint16_t>(segment.size() - network_));
    const auto id = LoadBe<uint16_t>(&segment[network_ + kIpv4Id]);
    StoreBe<uint16_t>(&segment[network_ + kIpv4Id], static_cast<uint16_t>(id + count_));
    StoreBe<uint16_t>(&segment[network_ + kIpv4Checksum], 0);
    StoreBe<uint16_t>(&segment[network_ + kIpv4Checksum],
                      Checksum(Sum(segment.subspan(network_, transport_ - network_))));
    pseudo += Sum(segment.subspan(network_ + kIpv4Addresses, 8));
  }
  size_t checksum = transport_ + kUdpChecksum;
  if (udp_) {
    StoreBe<uint16_t>(&segment[transport_ + kUdpLength], static_cast<uint16_t>(transport_bytes));
  } else {
    checksum = transport_ + kTcpChecksum;
    const auto sequence = LoadBe<uint32_t>(&segment[transport_ + kTcpSequence]);
    StoreBe<uint32_t>(&segment[transport_ + kTcpSequence], static_cast<uint32_t>(sequence + done_));
    uint8_t& flags = segment[transport_ + kTcpFlags];
    if (!last) flags &= static_cast<uint8_t>(~(kTcpFin | kTcpPush));
    if (!first) flags &= static_cast<uint8_t>(~kTcpReduced);
  }
  StoreBe<uint16_t>(&segment[checksum], 0);
  const uint16_t sum = Checksum(pseudo + Sum(segment.subspan(transport_)));
  StoreBe<uint16_t>(&segment[checksum], sum == 0 && udp_ ? uint16_t{0xFFFF} : sum);
}

bool SoftwareOffload::Next(std::vector<uint8_t>& out) {
  if (ended_) return false;
  out.assign(net_wire::kHeaderBytes, 0);
  if (!segments_) {
    out.insert(out.end(), frame_.begin(), frame_.end());
    ended_ = true;
    return true;
  }
  const size_t part = std::min(segment_bytes_, frame_.size() - payload_ - done_);
  const std::span<const uint8_t> headers = frame_.first(payload_);
  const std::span<const uint8_t> payload = frame_.subspan(payload_ + done_, part);
  out.insert(out.end(), headers.begin(), headers.end());
  out.insert(out.end(), payload.begin(), payload.end());
  FinishHeaders(std::span(out).subspan(net_wire::kHeaderBytes), part);
  done_ += part;
  ++count_;
  ended_ = payload_ + done_ == frame_.size();
  return true;
}

}  // namespace bothy::virtio
