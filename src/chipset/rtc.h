// Rtc: the real-time clock of a PC (Motorola MC146818A; section names are its data sheet's) with
// its 128 bytes of CMOS RAM and the century register at 0x32.
//
// The guest's time is the host's, as UTC, plus what the guest set. It goes on through pauses and
// resets, as a battery keeps it; interrupts fire only while the unit runs, and an alarm whose time
// passed during a pause fires when it ends. Alarm and update interrupts follow the wall clock, the
// periodic one guest time.
//
// Index and data are guest-controlled: any byte may be stored anywhere. Fields out of range that
// the guest sets are taken at their nearest, alarms out of range never match.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>

#include "chipset/bus.h"
#include "chipset/guest_clock.h"
#include "chipset/loop_timer.h"
#include "hypervisor/interrupts.h"
#include "inspect/node.h"
#include "support/event_loop.h"
#include "support/state_unit.h"

namespace bothy::chipset {

// Everything it remembers: what save and restore will carry.
struct RtcState {
  uint8_t index = 0;
  // Registers A..D, alarms and RAM. The time is here only while the guest holds it (SET, or the
  // divider in reset); otherwise it is computed when it is read.
  std::array<uint8_t, 128> cmos = {};
  // Guest time minus host time: whole seconds and 0..999'999'999 ns.
  int64_t offset_s = 0;
  uint32_t offset_ns = 0;
  // The nanosecond within the second at which the guest took hold of the time.
  uint32_t held_ns = 0;
  // How far the flags in register C account for time: guest seconds since 1970, periods of guest
  // time.
  int64_t counted_s = 0;
  uint64_t counted_periods = 0;
};

// Nanoseconds since 1970 of CLOCK_REALTIME.
uint64_t HostRealtimeNs();

// Thread-safe as far as IoDevice is; interrupts leave from vCPU threads and from the loop.
class Rtc : public IoDevice, public StateUnit {
 public:
  // `loop` and `clock` must outlive this object. Tests pass a `wall_clock` of their own.
  Rtc(EventLoop& loop, const GuestClock& clock, std::unique_ptr<hypervisor::IrqLine> irq,
      ClockSource wall_clock = HostRealtimeNs);
  ~Rtc() override;
  Rtc(const Rtc&) = delete;
  Rtc& operator=(const Rtc&) = delete;

  // IoDevice: offset 0 is the index (reads as ones), 1 the data.
  void Read(uint64_t offset, std::span<uint8_t> data) override;
  void Write(uint64_t offset, std::span<const uint8_t> data) override;

  [[nodiscard]] std::string_view name() const override { return "rtc"; }
  void Start() override;
  void Stop() override;
  // Interrupts off, registers A and B ready for use; time and RAM stay.
  void Reset() override;

  [[nodiscard]] RtcState State() const;
  void Inspect(inspect::Node& node) const;

 private:
  // Seconds since 1970 and the nanosecond within.
  struct Time {
    int64_t seconds;
    uint32_t ns;
  };

  // All with mutex_ held.
  uint8_t ReadCmos(uint8_t index);
  void WriteCmos(uint8_t index, uint8_t value);
  void WriteHeld(uint8_t index, uint8_t value);
  [[nodiscard]] bool Held() const;
  [[nodiscard]] Time Now() const;
  void SetNow(Time time);
  void StoreTime(int64_t seconds);
  [[nodiscard]] int64_t LoadTime() const;
  [[nodiscard]] uint8_t Encode(int value) const;
  [[nodiscard]] int Decode(uint8_t value) const;
  [[nodiscard]] uint8_t EncodeHour(int hour) const;
  [[nodiscard]] int DecodeHour(uint8_t value) const;
  [[nodiscard]] uint64_t PeriodNs() const;
  [[nodiscard]] std::optional<int64_t> NextAlarm(int64_t after) const;
  void CountTime();
  void CountFromNow();
  void Update();
  void SetTimer();

  void OnTimer();

  const GuestClock& clock_;
  const std::unique_ptr<hypervisor::IrqLine> irq_;
  const ClockSource wall_clock_;

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  RtcState state_;
  bool running_ = false;
  bool irq_asserted_ = false;
  bool timer_set_ = false;

  // Last: its callback uses all of the above.
  LoopTimer timer_;
};

}  // namespace bothy::chipset
