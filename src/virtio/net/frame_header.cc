#include "virtio/net/frame_header.h"

#include "support/endian.h"

namespace bothy::virtio {
namespace {

constexpr uint64_t kEthernetHeaderBytes = 14;

bool MaySegment(uint8_t type, const net::Offloads& negotiated) {
  switch (type) {
    case net_wire::kGsoTcp4:
      return negotiated.tso4;
    case net_wire::kGsoTcp6:
      return negotiated.tso6;
    case net_wire::kGsoTcp4 | net_wire::kGsoEcn:
      return negotiated.tso4 && negotiated.ecn;
    case net_wire::kGsoTcp6 | net_wire::kGsoEcn:
      return negotiated.tso6 && negotiated.ecn;
    case net_wire::kGsoUdp:
      return negotiated.uso;
    default:
      return false;
  }
}

}  // namespace

const char* DropName(SendDrop drop) {
  switch (drop) {
    case SendDrop::kRunt:
      return "runt";
    case SendDrop::kOversized:
      return "oversized";
    case SendDrop::kHeader:
      return "bad_header";
    case SendDrop::kLink:
      return "no_link";
    case SendDrop::kBackend:
      return "backend";
  }
  return "";
}

std::optional<SendDrop> CheckHeader(FrameHeader& header, uint64_t frame_bytes,
                                    const net::Offloads& negotiated) {
  if (frame_bytes < kEthernetHeaderBytes) return SendDrop::kRunt;
  if (frame_bytes > net::kLargestFrame) return SendDrop::kOversized;
  const uint8_t type = header[net_wire::kHeaderGsoType];
  const bool checksum = (header[net_wire::kHeaderFlags] & net_wire::kNeedsChecksum) != 0;
  const uint64_t start = LoadLe<uint16_t>(&header[net_wire::kHeaderChecksumStart]);
  const uint64_t offset = LoadLe<uint16_t>(&header[net_wire::kHeaderChecksumOffset]);
  if (checksum) {
    if (!negotiated.checksum) return SendDrop::kHeader;
    // The sum is of something behind the Ethernet header, and ends up within the frame.
    if (start < kEthernetHeaderBytes || start + offset + sizeof(uint16_t) > frame_bytes) {
      return SendDrop::kHeader;
    }
  } else {
    StoreLe<uint16_t>(&header[net_wire::kHeaderChecksumStart], 0);
    StoreLe<uint16_t>(&header[net_wire::kHeaderChecksumOffset], 0);
  }
  if (type == net_wire::kGsoNone) {
    StoreLe<uint16_t>(&header[net_wire::kHeaderGsoSize], 0);
    StoreLe<uint16_t>(&header[net_wire::kHeaderLength], 0);
  } else {
    if (!MaySegment(type, negotiated)) return SendDrop::kHeader;
    // Each segment gets a checksum, so there is one to complete (5.1.6.2.1).
    if (!checksum || LoadLe<uint16_t>(&header[net_wire::kHeaderGsoSize]) == 0) {
      return SendDrop::kHeader;
    }
    if (LoadLe<uint16_t>(&header[net_wire::kHeaderLength]) > frame_bytes) return SendDrop::kHeader;
  }
  header[net_wire::kHeaderFlags] &= net_wire::kNeedsChecksum;
  StoreLe<uint16_t>(&header[net_wire::kHeaderBuffers], 0);
  return std::nullopt;
}

}  // namespace bothy::virtio
