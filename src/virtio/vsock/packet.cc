#include "virtio/vsock/packet.h"

#include "support/endian.h"

namespace bothy::virtio::vsock {
namespace {

// Offsets in bytes.
constexpr size_t kSourceCid = 0;
constexpr size_t kDestinationCid = 8;
constexpr size_t kSourcePort = 16;
constexpr size_t kDestinationPort = 20;
constexpr size_t kLength = 24;
constexpr size_t kType = 28;
constexpr size_t kOperation = 30;
constexpr size_t kFlags = 32;
constexpr size_t kBufferBytes = 36;
constexpr size_t kForwardedBytes = 40;

}  // namespace

PacketHeader PacketHeader::Parse(const std::array<uint8_t, kBytes>& bytes) {
  return {.source_cid = LoadLe<uint64_t>(&bytes[kSourceCid]),
          .destination_cid = LoadLe<uint64_t>(&bytes[kDestinationCid]),
          .source_port = LoadLe<uint32_t>(&bytes[kSourcePort]),
          .destination_port = LoadLe<uint32_t>(&bytes[kDestinationPort]),
          .length = LoadLe<uint32_t>(&bytes[kLength]),
          .type = LoadLe<uint16_t>(&bytes[kType]),
          .operation = LoadLe<uint16_t>(&bytes[kOperation]),
          .flags = LoadLe<uint32_t>(&bytes[kFlags]),
          .buffer_bytes = LoadLe<uint32_t>(&bytes[kBufferBytes]),
          .forwarded_bytes = LoadLe<uint32_t>(&bytes[kForwardedBytes])};
}

std::array<uint8_t, PacketHeader::kBytes> PacketHeader::ToBytes() const {
  std::array<uint8_t, kBytes> bytes{};
  StoreLe(&bytes[kSourceCid], source_cid);
  StoreLe(&bytes[kDestinationCid], destination_cid);
  StoreLe(&bytes[kSourcePort], source_port);
  StoreLe(&bytes[kDestinationPort], destination_port);
  StoreLe(&bytes[kLength], length);
  StoreLe(&bytes[kType], type);
  StoreLe(&bytes[kOperation], operation);
  StoreLe(&bytes[kFlags], flags);
  StoreLe(&bytes[kBufferBytes], buffer_bytes);
  StoreLe(&bytes[kForwardedBytes], forwarded_bytes);
  return bytes;
}

}  // namespace bothy::virtio::vsock
