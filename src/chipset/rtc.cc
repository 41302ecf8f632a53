#include "chipset/rtc.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <utility>

namespace bothy::chipset {
namespace {

// "Address map".
enum Index : uint8_t {
  kSeconds = 0x00,
  kSecondsAlarm = 0x01,
  kMinutes = 0x02,
  kMinutesAlarm = 0x03,
  kHours = 0x04,
  kHoursAlarm = 0x05,
  kDayOfWeek = 0x06,
  kDayOfMonth = 0x07,
  kMonth = 0x08,
  kYear = 0x09,
  kRegisterA = 0x0A,
  kRegisterB = 0x0B,
  kRegisterC = 0x0C,
  kRegisterD = 0x0D,
  kCentury = 0x32,
};
// The upper bit of the index port gates NMI on a PC, which this one hasn't got.
constexpr uint8_t kIndexMask = 0x7F;

// "Register A".
constexpr uint8_t kUpdateInProgress = 0x80;
constexpr uint8_t kRateMask = 0x0F;
// Divider bits 11x hold the divider chain in reset.
constexpr uint8_t kDividerResetMask = 0x60;
constexpr uint8_t kRegisterADefault = 0x26;  // 32768 Hz, 1024 Hz periodic

// "Register B".
constexpr uint8_t kSet = 0x80;
constexpr uint8_t kUpdateInterrupt = 0x10;
constexpr uint8_t kAlarmInterrupt = 0x20;
constexpr uint8_t kPeriodicInterrupt = 0x40;
constexpr uint8_t kSquareWave = 0x08;
constexpr uint8_t kBinary = 0x04;
constexpr uint8_t k24Hours = 0x02;
constexpr uint8_t kInterrupts = kUpdateInterrupt | kAlarmInterrupt | kPeriodicInterrupt;

// "Register C": flags at the places of the enable bits of B.
constexpr uint8_t kInterruptRequest = 0x80;

// "Register D".
constexpr uint8_t kValidRamAndTime = 0x80;

constexpr uint8_t kPm = 0x80;
constexpr uint8_t kAnyAlarm = 0xC0;

constexpr uint64_t kNsPerSecond = 1'000'000'000;
// The update cycle with its announcement: 1984 us + 244 us before the seconds change ("Update
// cycle").
constexpr uint32_t kUpdateNs = 2'228'000;
// After its reset the divider ends the first second early ("Divider control").
constexpr uint32_t kNsAfterDividerReset = 500'000'000;

constexpr int kSecondsPerDay = 86'400;

bool IsTimeRegister(uint8_t index) {
  return index == kSeconds || index == kMinutes || index == kHours ||
         (index >= kDayOfWeek && index <= kYear) || index == kCentury;
}

struct Civil {
  int year;
  unsigned month;
  unsigned day;
  int weekday;  // 1 is Sunday
  int hour;
  int minute;
  int second;
};

Civil ToCivil(int64_t seconds) {
  int64_t days = seconds / kSecondsPerDay;
  auto second_of_day = static_cast<int>(seconds % kSecondsPerDay);
  if (second_of_day < 0) {
    second_of_day += kSecondsPerDay;
    --days;
  }
  const std::chrono::sys_days date{std::chrono::days(days)};
  const std::chrono::year_month_day ymd(date);
  return {.year = static_cast<int>(ymd.year()),
          .month = static_cast<unsigned>(ymd.month()),
          .day = static_cast<unsigned>(ymd.day()),
          .weekday = static_cast<int>(std::chrono::weekday(date).c_encoding()) + 1,
          .hour = second_of_day / 3600,
          .minute = second_of_day / 60 % 60,
          .second = second_of_day % 60};
}

int FloorModulo(int value, int modulus) { return (value % modulus + modulus) % modulus; }

}  // namespace

uint64_t HostRealtimeNs() {
  timespec now;
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<uint64_t>(now.tv_nsec);
}

Rtc::Rtc(EventLoop& loop, const GuestClock& clock, std::unique_ptr<hypervisor::IrqLine> irq,
         ClockSource wall_clock)
    : clock_(clock),
      irq_(std::move(irq)),
      wall_clock_(wall_clock),
      timer_(loop, [this] { OnTimer(); }) {
  state_.cmos[kRegisterA] = kRegisterADefault;
  state_.cmos[kRegisterB] = k24Hours;
  state_.cmos[kRegisterD] = kValidRamAndTime;
  CountFromNow();
}

Rtc::~Rtc() { irq_->Set(false); }

void Rtc::Read(uint64_t offset, std::span<uint8_t> data) {
  std::lock_guard lock(mutex_);
  for (uint8_t& byte : data) byte = offset++ == 1 ? ReadCmos(state_.index) : 0xFF;
}

void Rtc::Write(uint64_t offset, std::span<const uint8_t> data) {
  std::lock_guard lock(mutex_);
  for (const uint8_t byte : data) {
    if (offset++ == 0) {
      state_.index = byte & kIndexMask;
    } else {
      WriteCmos(state_.index, byte);
    }
  }
}

uint8_t Rtc::ReadCmos(uint8_t index) {
  if (index == kRegisterA) {
    const bool updating = !Held() && Now().ns >= kNsPerSecond - kUpdateNs;
    return state_.cmos[kRegisterA] | (updating ? kUpdateInProgress : 0);
  }
  if (index == kRegisterC) {
    CountTime();
    const uint8_t flags = std::exchange(state_.cmos[kRegisterC], 0);
    const bool request = (flags & state_.cmos[kRegisterB] & kInterrupts) != 0;
    Update();
    return flags | (request ? kInterruptRequest : 0);
  }
  if (IsTimeRegister(index) && !Held()) StoreTime(Now().seconds);
  return state_.cmos[index];
}

void Rtc::WriteCmos(uint8_t index, uint8_t value) {
  if (index == kRegisterC || index == kRegisterD) return;
  if (index == kRegisterA || index == kRegisterB || IsTimeRegister(index)) {
    CountTime();
    WriteHeld(index, value);
    CountFromNow();
    Update();
  } else if (index == kSecondsAlarm || index == kMinutesAlarm || index == kHoursAlarm) {
    CountTime();
    state_.cmos[index] = value;
    Update();
  } else {
    state_.cmos[index] = value;
  }
}

// Writes to what may take hold of the time, let go of it or change it.
void Rtc::WriteHeld(uint8_t index, uint8_t value) {
  const bool was_held = Held();
  if (!was_held) {
    const Time now = Now();
    StoreTime(now.seconds);
    state_.held_ns = now.ns;
  }
  if (index == kRegisterA) {
    state_.cmos[kRegisterA] = value & ~kUpdateInProgress;
  } else if (index == kRegisterB) {
    // "SET ... clears UIE".
    state_.cmos[kRegisterB] = value & kSet ? value & ~kUpdateInterrupt : value;
  } else {
    state_.cmos[index] = value;
  }
  if ((state_.cmos[kRegisterA] & kDividerResetMask) == kDividerResetMask) {
    state_.held_ns = kNsAfterDividerReset;
  }
  const bool wrote_time = IsTimeRegister(index);
  // A change of format alone must not reinterpret a time that runs.
  if (!Held() && (was_held || wrote_time)) {
    SetNow({.seconds = LoadTime(), .ns = state_.held_ns});
  }
}

bool Rtc::Held() const {
  return (state_.cmos[kRegisterB] & kSet) != 0 ||
         (state_.cmos[kRegisterA] & kDividerResetMask) == kDividerResetMask;
}

Rtc::Time Rtc::Now() const {
  const uint64_t host_ns = wall_clock_();
  Time time = {.seconds = static_cast<int64_t>(host_ns / kNsPerSecond) + state_.offset_s,
               .ns = static_cast<uint32_t>(host_ns % kNsPerSecond) + state_.offset_ns};
  if (time.ns >= kNsPerSecond) {
    time.ns -= kNsPerSecond;
    ++time.seconds;
  }
  return time;
}

void Rtc::SetNow(Time time) {
  const uint64_t host_ns = wall_clock_();
  const auto host_s = static_cast<int64_t>(host_ns / kNsPerSecond);
  const auto host_part = static_cast<uint32_t>(host_ns % kNsPerSecond);
  const bool borrow = time.ns < host_part;
  state_.offset_s = time.seconds - host_s - (borrow ? 1 : 0);
  state_.offset_ns = time.ns + (borrow ? kNsPerSecond : 0) - host_part;
}

void Rtc::StoreTime(int64_t seconds) {
  const Civil civil = ToCivil(seconds);
  auto& cmos = state_.cmos;
  cmos[kSeconds] = Encode(civil.second);
  cmos[kMinutes] = Encode(civil.minute);
  cmos[kHours] = EncodeHour(civil.hour);
  cmos[kDayOfWeek] = Encode(civil.weekday);
  cmos[kDayOfMonth] = Encode(static_cast<int>(civil.day));
  cmos[kMonth] = Encode(static_cast<int>(civil.month));
  cmos[kYear] = Encode(FloorModulo(civil.year, 100));
  cmos[kCentury] = Encode(FloorModulo(civil.year / 100, 100));
}

int64_t Rtc::LoadTime() const {
  const auto& cmos = state_.cmos;
  const auto field = [&](uint8_t index, int low, int high) {
    return std::clamp(Decode(cmos[index]), low, high);
  };
  const int year = field(kCentury, 0, 99) * 100 + field(kYear, 0, 99);
  // Days beyond the month's end run into the next one.
  const std::chrono::sys_days first =
      std::chrono::year(year) / std::chrono::month(static_cast<unsigned>(field(kMonth, 1, 12))) / 1;
  const int64_t days = first.time_since_epoch().count() + field(kDayOfMonth, 1, 31) - 1;
  const int64_t hours = days * 24 + std::clamp(DecodeHour(cmos[kHours]), 0, 23);
  const int64_t minutes = hours * 60 + field(kMinutes, 0, 59);
  return minutes * 60 + field(kSeconds, 0, 59);
}

uint8_t Rtc::Encode(int value) const {
  if (state_.cmos[kRegisterB] & kBinary) return static_cast<uint8_t>(value);
  return static_cast<uint8_t>(value / 10 << 4 | value % 10);
}

int Rtc::Decode(uint8_t value) const {
  if (state_.cmos[kRegisterB] & kBinary) return value;
  return (value >> 4) * 10 + (value & 0x0F);
}

uint8_t Rtc::EncodeHour(int hour) const {
  if (state_.cmos[kRegisterB] & k24Hours) return Encode(hour);
  const int on_dial = hour % 12 == 0 ? 12 : hour % 12;
  return Encode(on_dial) | (hour >= 12 ? kPm : 0);
}

int Rtc::DecodeHour(uint8_t value) const {
  if (state_.cmos[kRegisterB] & k24Hours) return Decode(value);
  const int on_dial = Decode(value & ~kPm);
  // 0 and 13.. aren't on the dial; -1 and 24.. match nothing and are clamped.
  if (on_dial < 1 || on_dial > 12) return on_dial < 1 ? -1 : 24;
  return on_dial % 12 + (value & kPm ? 12 : 0);
}

// Of the periodic interrupt ("Rate selection"); 0: off.
uint64_t Rtc::PeriodNs() const {
  int rate = state_.cmos[kRegisterA] & kRateMask;
  if (rate == 0) return 0;
  // With a 32768 Hz crystal the two fastest rates are 256 and 128 Hz.
  if (rate <= 2) rate += 7;
  return (uint64_t{1} << (rate - 1)) * kNsPerSecond / 32'768;
}

// The first second after `after` at which the alarm matches ("Alarm").
std::optional<int64_t> Rtc::NextAlarm(int64_t after) const {
  const auto& cmos = state_.cmos;
  const auto matches = [](uint8_t alarm, int decoded, int value) {
    return (alarm & kAnyAlarm) == kAnyAlarm || decoded == value;
  };
  const int second = Decode(cmos[kSecondsAlarm]);
  const int minute = Decode(cmos[kMinutesAlarm]);
  const int hour = DecodeHour(cmos[kHoursAlarm]);
  // Skips to the next hour, minute or second: at most 24 + 60 + 60 steps to a match.
  for (int64_t time = after + 1; time <= after + kSecondsPerDay;) {
    const Civil civil = ToCivil(time);
    if (!matches(cmos[kHoursAlarm], hour, civil.hour)) {
      time += 3600 - civil.minute * 60 - civil.second;
    } else if (!matches(cmos[kMinutesAlarm], minute, civil.minute)) {
      time += 60 - civil.second;
    } else if (!matches(cmos[kSecondsAlarm], second, civil.second)) {
      ++time;
    } else {
      return time;
    }
  }
  return std::nullopt;
}

// Sets the flags for what has happened since it was last called.
void Rtc::CountTime() {
  uint8_t& flags = state_.cmos[kRegisterC];
  if (!Held()) {
    const int64_t now = Now().seconds;
    if (now > state_.counted_s) {
      flags |= kUpdateInterrupt;
      const std::optional<int64_t> alarm = NextAlarm(state_.counted_s);
      if (alarm.has_value() && *alarm <= now) flags |= kAlarmInterrupt;
    }
    state_.counted_s = now;
  }
  if (const uint64_t period = PeriodNs(); period != 0) {
    const uint64_t periods = clock_.NowNs() / period;
    if (periods > state_.counted_periods) flags |= kPeriodicInterrupt;
    state_.counted_periods = periods;
  }
}

// Time jumps or the rate changes: what lies between didn't happen.
void Rtc::CountFromNow() {
  if (!Held()) state_.counted_s = Now().seconds;
  const uint64_t period = PeriodNs();
  state_.counted_periods = period == 0 ? 0 : clock_.NowNs() / period;
}

void Rtc::Update() {
  const bool asserted = (state_.cmos[kRegisterC] & state_.cmos[kRegisterB] & kInterrupts) != 0;
  if (asserted != irq_asserted_) {
    irq_asserted_ = asserted;
    irq_->Set(asserted);
  }
  SetTimer();
}

// For the first flag that would raise an interrupt and isn't set yet. One that the guest leaves set
// therefore costs nothing.
void Rtc::SetTimer() {
  std::optional<uint64_t> delay;
  const auto consider = [&delay](uint64_t ns) { delay = std::min(delay.value_or(ns), ns); };
  const uint8_t wanted = state_.cmos[kRegisterB] & ~state_.cmos[kRegisterC] & kInterrupts;
  if (running_) {
    if (!Held() && (wanted & (kUpdateInterrupt | kAlarmInterrupt))) {
      const Time now = Now();
      std::optional<int64_t> second;
      if (wanted & kAlarmInterrupt) second = NextAlarm(state_.counted_s);
      if (wanted & kUpdateInterrupt) second = state_.counted_s + 1;
      if (second.has_value()) {
        consider(*second <= now.seconds
                     ? 0
                     : static_cast<uint64_t>(*second - now.seconds) * kNsPerSecond - now.ns);
      }
    }
    const uint64_t period = PeriodNs();
    if ((wanted & kPeriodicInterrupt) && period != 0) {
      const uint64_t next = (state_.counted_periods + 1) * period;
      const uint64_t now = clock_.NowNs();
      consider(next > now ? next - now : 0);
    }
  }
  if (delay.has_value()) {
    timer_set_ = true;
    timer_.Set(*delay);
  } else if (std::exchange(timer_set_, false)) {
    timer_.Cancel();
  }
}

void Rtc::OnTimer() {
  std::lock_guard lock(mutex_);
  timer_set_ = false;
  if (!running_) return;
  CountTime();
  Update();
}

void Rtc::Start() {
  std::lock_guard lock(mutex_);
  running_ = true;
  CountTime();
  Update();
}

void Rtc::Stop() {
  std::lock_guard lock(mutex_);
  running_ = false;
  SetTimer();
}

void Rtc::Reset() {
  std::lock_guard lock(mutex_);
  state_.index = 0;
  // Firmware starts a clock that the last guest left held; where there is no firmware this does.
  const bool was_held = Held();
  state_.cmos[kRegisterA] = kRegisterADefault;
  state_.cmos[kRegisterB] &= ~(kSet | kInterrupts | kSquareWave);
  state_.cmos[kRegisterC] = 0;
  if (was_held) SetNow({.seconds = LoadTime(), .ns = state_.held_ns});
  CountFromNow();
  Update();
}

RtcState Rtc::State() const {
  std::lock_guard lock(mutex_);
  return state_;
}

void Rtc::Inspect(inspect::Node& node) const {
  const RtcState state = State();
  node.Value("offset_s", state.offset_s);
  node.Address("register_a", state.cmos[0x0A]);
  node.Address("register_b", state.cmos[0x0B]);
}

}  // namespace bothy::chipset
