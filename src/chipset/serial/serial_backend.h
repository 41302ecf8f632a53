// What stands at the other end of a serial port's cable, and how bytes come back.
//
// Uart (vCPU threads) --Transmit--> SerialBackend --Receive--> SerialInput (the Uart again).
// Lock order: a backend may hold a lock of its own while it calls Receive, which takes the port's
// lock, which is held during Transmit and OnReceiveRoom; those two therefore mustn't take the lock
// that the backend holds around Receive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace bothy::chipset {

// The receiving side of a serial port. Thread-safe.
class SerialInput {
 public:
  virtual ~SerialInput() = default;
  // Takes as many of `bytes`, first to last, as there is room for and says how many. When it is
  // fewer than all, SerialBackend::OnReceiveRoom follows as soon as more may be offered: offer the
  // rest then, not before.
  [[nodiscard]] virtual size_t Receive(std::span<const uint8_t> bytes) = 0;
};

class SerialBackend {
 public:
  virtual ~SerialBackend() = default;
  // What the guest wrote, in order. vCPU threads, one call at a time. Never blocks: what can't be
  // passed on is dropped.
  virtual void Transmit(std::span<const uint8_t> bytes) = 0;
  // The port has room again after a Receive that took less than it was offered. vCPU threads and
  // the thread that drives the life cycle; never from within Receive. Doesn't block.
  virtual void OnReceiveRoom() = 0;
  // `input` gets what the peer sends from now on; null detaches, and returns when no Receive is
  // in flight any more.
  virtual void Attach(SerialInput* input) = 0;
};

}  // namespace bothy::chipset
