// Uart16550: one PC serial port (National PC16550D data sheet; section numbers are its).
//
// The wire is infinitely fast: a byte written to THR is with the backend when the access returns,
// so the transmitter always reads as empty and a guest never waits. Input obeys the guest: the
// 16-byte FIFO takes what fits and the backend keeps the rest until the guest has read, so no
// overrun happens (except in loopback mode, where the guest overruns itself).
//
// Registers and data are guest-controlled. Accesses wider than a byte act on consecutive
// registers, low first, as an ISA bus does it. Parity, word length and baud rate are stored, and
// mean nothing.
//
//   IoBus ports; auto relay = SerialRelay::Create(...).value();
//   Uart16550 com1({.name = "com1"}, irq4.NewInput(), *relay);
//   ports.Register(kSerialPorts[0].base, kSerialPortSize, com1);
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "chipset/bus.h"
#include "chipset/serial/serial_backend.h"
#include "hypervisor/interrupts.h"
#include "inspect/node.h"
#include "support/state_unit.h"

namespace bothy::chipset {

struct Uart16550Options {
  std::string name;  // "com1", in logs and inspection
};

// Everything a port remembers: what save and restore will carry.
struct Uart16550State {
  static constexpr size_t kFifoSize = 16;

  uint8_t interrupt_enable = 0;  // IER
  uint8_t fifo_control = 0;      // FCR: enable and trigger level
  uint8_t line_control = 0;      // LCR
  uint8_t modem_control = 0;     // MCR
  uint8_t line_errors = 0;       // LSR: overrun and break only; the rest is derived
  uint8_t modem_deltas = 0;      // MSR bits 0..3
  uint8_t scratch = 0;           // SCR
  uint16_t divisor = 12;         // DLM:DLL; 9600 baud
  // The transmitter became empty and IIR hasn't told yet.
  bool transmit_empty_pending = false;
  // Received bytes; [fifo_head], [fifo_head + 1] ... modulo its size.
  std::array<uint8_t, kFifoSize> fifo = {};
  uint8_t fifo_head = 0;
  uint8_t fifo_count = 0;
};

// Counters since power-on of the process's side, for inspection.
struct Uart16550Counters {
  uint64_t bytes_from_guest = 0;
  uint64_t bytes_to_guest = 0;
};

class Uart16550 : public IoDevice, public SerialInput, public StateUnit {
 public:
  // Keeps `irq` low to begin with. `backend` must outlive this object, which attaches itself to it
  // for as long as it lives.
  Uart16550(Uart16550Options options, std::unique_ptr<hypervisor::IrqLine> irq,
            SerialBackend& backend);
  ~Uart16550() override;
  Uart16550(const Uart16550&) = delete;
  Uart16550& operator=(const Uart16550&) = delete;

  // IoDevice: offsets 0..7.
  void Read(uint64_t offset, std::span<uint8_t> data) override;
  void Write(uint64_t offset, std::span<const uint8_t> data) override;

  // SerialInput. Takes nothing while stopped or in loopback mode.
  [[nodiscard]] size_t Receive(std::span<const uint8_t> bytes) override;

  // StateUnit. A reset empties the FIFO; what the backend holds back stays there.
  [[nodiscard]] std::string_view name() const override { return name_; }
  void Start() override;
  void Stop() override;
  void Reset() override;

  // A copy of the registers as they are now; thread-safe.
  [[nodiscard]] Uart16550State State() const;
  [[nodiscard]] Uart16550Counters Counters() const;
  void Inspect(inspect::Node& node) const;

 private:
  // All with mutex_ held.
  uint8_t ReadRegister(uint64_t offset);
  void WriteRegister(uint64_t offset, uint8_t value);
  uint8_t ReadData();
  void WriteData(uint8_t value);
  void WriteFifoControl(uint8_t value);
  void WriteModemControl(uint8_t value);
  [[nodiscard]] bool FifoEnabled() const;
  [[nodiscard]] bool Loopback() const;
  [[nodiscard]] size_t Capacity() const;
  [[nodiscard]] uint8_t ModemLines() const;
  [[nodiscard]] uint8_t LineStatus() const;
  [[nodiscard]] uint8_t InterruptIdentification() const;
  void PushReceived(uint8_t value);
  void ClearReceived();
  void LoopBack(uint8_t value);
  void UpdateIrq();
  void OfferRoom();

  const std::string name_;
  const std::unique_ptr<hypervisor::IrqLine> irq_;
  SerialBackend& backend_;

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  Uart16550State state_;
  Uart16550Counters counters_;
  bool irq_asserted_ = false;
  bool running_ = false;
  // Receive took less than it was offered, and OnReceiveRoom hasn't followed yet.
  bool backend_waits_ = false;
};

}  // namespace bothy::chipset
