// What a virtio-vsock driver and device exchange (virtio 1.2, 5.10): the header of every packet,
// and the numbers in it. All little-endian.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace bothy::virtio::vsock {

// Queues (5.10.2).
inline constexpr uint16_t kReceiveQueue = 0;
inline constexpr uint16_t kTransmitQueue = 1;
inline constexpr uint16_t kEventQueue = 2;

inline constexpr uint64_t kFeatureStream = uint64_t{1} << 0;
inline constexpr uint64_t kHostCid = 2;
// CIDs that a guest may have (5.10.4): below are reserved ones, above is what le64 has no use for.
inline constexpr uint64_t kFirstGuestCid = 3;
inline constexpr uint64_t kLastGuestCid = 0xFFFF'FFFE;

inline constexpr uint16_t kTypeStream = 1;

// Operations (5.10.6).
inline constexpr uint16_t kRequest = 1;
inline constexpr uint16_t kResponse = 2;
inline constexpr uint16_t kReset = 3;
inline constexpr uint16_t kShutdown = 4;
inline constexpr uint16_t kData = 5;
inline constexpr uint16_t kCreditUpdate = 6;
inline constexpr uint16_t kCreditRequest = 7;

// Flags of kShutdown (5.10.6.5): the sender of the packet receives, or sends, no more.
inline constexpr uint32_t kNoMoreReceived = 1;
inline constexpr uint32_t kNoMoreSent = 2;
inline constexpr uint32_t kNoMoreAtAll = kNoMoreReceived | kNoMoreSent;

// struct virtio_vsock_hdr.
struct PacketHeader {
  static constexpr size_t kBytes = 44;

  uint64_t source_cid = 0;
  uint64_t destination_cid = 0;
  uint32_t source_port = 0;
  uint32_t destination_port = 0;
  uint32_t length = 0;  // of the payload behind the header
  uint16_t type = 0;
  uint16_t operation = 0;
  uint32_t flags = 0;
  uint32_t buffer_bytes = 0;     // buf_alloc: the sender's room for what it receives
  uint32_t forwarded_bytes = 0;  // fwd_cnt: what has left that room, free-running

  static PacketHeader Parse(const std::array<uint8_t, kBytes>& bytes);
  [[nodiscard]] std::array<uint8_t, kBytes> ToBytes() const;
};

}  // namespace bothy::virtio::vsock
