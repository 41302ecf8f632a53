// The two registers by which a guest resets a PC without ACPI's help.
//
// Both turn a guest-controlled write into PowerSink's kReset and keep nothing else; what a reset
// does is the machine's affair.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string_view>

#include "chipset/bus.h"
#include "chipset/power.h"
#include "support/state_unit.h"

namespace bothy::chipset {

// RST_CNT at kResetControlPort, one byte, which is also the FADT's RESET_REG. Bit 2 going from 0 to
// 1 resets; bits 1 and 3 (hard, full) are stored, and any reset is a full one. Thread-safe.
class ResetControl : public IoDevice, public StateUnit {
 public:
  explicit ResetControl(PowerSink& power) : power_(power) {}
  void Read(uint64_t offset, std::span<uint8_t> data) override;
  void Write(uint64_t offset, std::span<const uint8_t> data) override;

  [[nodiscard]] std::string_view name() const override { return "reset-control"; }
  void Start() override {}
  void Stop() override {}
  void Reset() override { value_ = 0; }

 private:
  PowerSink& power_;
  std::atomic<uint8_t> value_{0};
};

// The keyboard controller's command port, kKeyboardCommandPort, of a machine without a keyboard
// controller (the FADT says so): command 0xFE pulses the reset line, the status always reads
// "ready". Linux's reboot=k polls the status 65536 times where nothing answers. Thread-safe.
class KeyboardReset : public IoDevice {
 public:
  explicit KeyboardReset(PowerSink& power) : power_(power) {}
  void Read(uint64_t offset, std::span<uint8_t> data) override;
  void Write(uint64_t offset, std::span<const uint8_t> data) override;

 private:
  PowerSink& power_;
};

}  // namespace bothy::chipset
