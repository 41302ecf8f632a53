// AcpiPm: ACPI fixed hardware: the PM1a event and control registers and the PM timer
// (ACPI 6.5, 4.8.3).
//
// Registers at kPmBase: PM1a_STS, PM1a_EN, PM1a_CNT, PM_TMR. The FADT that goes with it says
// SMI_CMD = 0 (so SCI_EN always reads as set), FIX_RTC (RTC wake status isn't here), SLP_BUTTON (no
// sleep button here) and TMR_VAL_EXT (the timer has 32 bits). The power button is here for a
// machine whose FADT clears PWR_BUTTON.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>

#include "chipset/bus.h"
#include "chipset/guest_clock.h"
#include "chipset/loop_timer.h"
#include "chipset/power.h"
#include "hypervisor/interrupts.h"
#include "inspect/node.h"
#include "support/event_loop.h"
#include "support/log.h"
#include "support/state_unit.h"

namespace bothy::chipset {

inline constexpr uint64_t kPmTimerHz = 3'579'545;

// Everything it remembers: what save and restore will carry.
struct AcpiPmState {
  uint16_t status = 0;   // PM1a_STS
  uint16_t enable = 0;   // PM1a_EN
  uint16_t control = 0;  // PM1a_CNT without SCI_EN and SLP_EN, which aren't stored
  // Times the timer's top bit has changed, as far as TMR_STS accounts for them.
  uint64_t timer_carries = 0;
};

// Thread-safe as far as IoDevice is; the SCI leaves from vCPU threads and from the loop.
class AcpiPm : public IoDevice, public StateUnit {
 public:
  // `sci` is level-triggered; the others must outlive this object.
  AcpiPm(EventLoop& loop, const GuestClock& clock, std::unique_ptr<hypervisor::IrqLine> sci,
         PowerSink& power);
  ~AcpiPm() override;
  AcpiPm(const AcpiPm&) = delete;
  AcpiPm& operator=(const AcpiPm&) = delete;

  // IoDevice: offsets 0..kPmSize - 1. Sleeping with SLP_TYP kSleepTypeS5 is kPowerOff.
  void Read(uint64_t offset, std::span<uint8_t> data) override;
  void Write(uint64_t offset, std::span<const uint8_t> data) override;

  // The user pressed the power button: the guest's ACPI driver is asked to shut down, if the FADT
  // says that the button is here. Any thread.
  void PressPowerButton();

  [[nodiscard]] std::string_view name() const override { return "acpi-pm"; }
  void Start() override;
  void Stop() override;
  void Reset() override;

  [[nodiscard]] AcpiPmState State() const;
  void Inspect(inspect::Node& node) const;

 private:
  // All with mutex_ held.
  uint8_t ReadByte(uint64_t offset, uint32_t timer);
  // True when the guest has asked to be powered off.
  [[nodiscard]] bool WriteByte(uint64_t offset, uint8_t value);
  [[nodiscard]] uint64_t Ticks() const;
  void CountCarries();
  void Update();

  void OnTimer();

  const GuestClock& clock_;
  const std::unique_ptr<hypervisor::IrqLine> sci_;
  PowerSink& power_;
  LogLimiter log_;

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  AcpiPmState state_;
  bool running_ = false;
  bool sci_asserted_ = false;
  bool carry_timer_set_ = false;

  // Fires at the next change of the PM timer's top bit. Last: its callback uses all of the above.
  LoopTimer carry_timer_;
};

}  // namespace bothy::chipset
