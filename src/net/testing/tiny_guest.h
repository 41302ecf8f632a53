// TinyGuest: as much of a guest's IPv4 stack as it takes to talk to a backend: ARP, UDP, TCP
// without loss, reordering or options.
//
// Everything that waits runs the loop meanwhile, and has no end if what it waits for doesn't come.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "net/backend.h"
#include "support/io_loop.h"

namespace bothy::net {

using FrameBytes = std::vector<uint8_t>;

constexpr uint32_t Ipv4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
  return uint32_t{a} << 24 | uint32_t{b} << 16 | uint32_t{c} << 8 | d;
}

// An IPv4 packet of UDP or TCP, in host byte order.
struct Packet {
  static constexpr uint8_t kTcp = 6;
  static constexpr uint8_t kUdp = 17;
  static constexpr uint8_t kFin = 1;
  static constexpr uint8_t kSyn = 2;
  static constexpr uint8_t kRst = 4;
  static constexpr uint8_t kAck = 16;

  uint8_t protocol = 0;
  uint32_t source = 0;
  uint32_t destination = 0;
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  std::string payload;
  // TCP's.
  uint8_t flags = 0;
  uint32_t sequence = 0;
  uint32_t acknowledged = 0;

  // Nothing when the frame is something else; checksums are verified.
  static std::optional<Packet> Parse(std::span<const uint8_t> frame);
};

class TinyGuest {
 public:
  static constexpr std::array<uint8_t, 6> kMac = {0x02, 0, 0, 0, 0, 0x15};
  static constexpr std::array<uint8_t, 6> kBroadcast = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};

  TinyGuest(Backend& backend, IoLoop& loop) : queue_(backend.queue(0)), loop_(loop) {
    queue_.SetCallbacks([this] { readable_ = true; }, nullptr);
  }

  // The guest's own address, for ARP and what it sends.
  void SetAddress(uint32_t address) { address_ = address; }

  // A whole frame, headers of all kinds included.
  FrameQueue::Sent SendFrame(std::span<const uint8_t> frame,
                             std::array<uint8_t, kHeaderBytes> header = {});
  FrameQueue::Sent SendPacket(const Packet& packet);
  // The first of the frames that came, or come, that `wanted` says true of.
  FrameBytes WaitForFrame(const std::function<bool(std::span<const uint8_t>)>& wanted);
  Packet WaitForPacket(const std::function<bool(const Packet&)>& wanted);
  // Frames that are there now.
  size_t TakeAll();
  [[nodiscard]] const std::deque<FrameBytes>& frames() const { return frames_; }

 private:
  void Answer(std::span<const uint8_t> frame);

  FrameQueue& queue_;
  IoLoop& loop_;
  uint32_t address_ = Ipv4(10, 0, 2, 15);
  uint16_t next_id_ = 1;
  bool readable_ = false;
  std::deque<FrameBytes> frames_;
};

// One end of a connection, the guest's.
class TinyConnection {
 public:
  static TinyConnection Connect(TinyGuest& guest, uint32_t address, uint16_t port,
                                uint16_t own_port);
  // The next one to `port`.
  static TinyConnection Accept(TinyGuest& guest, uint16_t port);

  // Returns when it has been acknowledged.
  void Send(std::string_view bytes);
  std::string Receive(size_t bytes);
  void Close();

 private:
  TinyConnection(TinyGuest& guest, const Packet& first);
  [[nodiscard]] Packet Segment(uint8_t flags) const;
  [[nodiscard]] bool IsMine(const Packet& packet) const;
  void TakeSegment(const Packet& packet);

  TinyGuest* guest_;
  Packet template_;        // addresses and ports of what is sent
  uint32_t next_ = 1000;   // sequence numbers: to send,
  uint32_t expected_ = 0;  // and to receive
  uint32_t acknowledged_ = 0;
  std::string received_;
};

}  // namespace bothy::net
