#include "chipset/acpi_pm.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "chipset/legacy_ports.h"

namespace bothy::chipset {
namespace {

// Offsets from kPmBase.
constexpr uint64_t kStatus = kPm1aEventPort - kPmBase;
constexpr uint64_t kEnable = kStatus + kPm1EventLength / 2;
constexpr uint64_t kControl = kPm1aControlPort - kPmBase;
constexpr uint64_t kTimer = kPmTimerPort - kPmBase;

// PM1 status and enable bits (tables 4.12 and 4.13).
constexpr uint16_t kTimerBit = 1u << 0;
constexpr uint16_t kGlobalBit = 1u << 5;
constexpr uint16_t kPowerButtonBit = 1u << 8;
// Kept though nothing sets its status (FIX_RTC says so): Linux enables it whatever the FADT says,
// reads it back, and complains when it isn't there.
constexpr uint16_t kRtcBit = 1u << 10;
constexpr uint16_t kEnableMask = kTimerBit | kGlobalBit | kPowerButtonBit | kRtcBit;

// PM1 control bits (table 4.14).
constexpr uint16_t kSciEnable = 1u << 0;
constexpr uint16_t kBusMasterReload = 1u << 1;
constexpr uint16_t kSleepTypeMask = 7u << 10;
constexpr int kSleepTypeShift = 10;
constexpr uint16_t kSleepEnable = 1u << 13;
constexpr uint16_t kControlMask = kBusMasterReload | kSleepTypeMask;

constexpr uint64_t kNsPerSecond = 1'000'000'000;
// TMR_STS follows the top bit of the 32-bit timer.
constexpr int kCarryShift = 31;

uint8_t ByteOf(uint32_t value, uint64_t index) { return static_cast<uint8_t>(value >> 8 * index); }

uint16_t WithByte(uint16_t value, uint64_t index, uint8_t byte) {
  const auto shift = static_cast<int>(8 * index);
  return static_cast<uint16_t>((value & ~(0xFF << shift)) | byte << shift);
}

}  // namespace

AcpiPm::AcpiPm(EventLoop& loop, const GuestClock& clock, std::unique_ptr<hypervisor::IrqLine> sci,
               PowerSink& power)
    : clock_(clock),
      sci_(std::move(sci)),
      power_(power),
      carry_timer_(loop, [this] { OnTimer(); }) {}

AcpiPm::~AcpiPm() { sci_->Set(false); }

uint64_t AcpiPm::Ticks() const {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(clock_.NowNs()) * kPmTimerHz /
                               kNsPerSecond);
}

void AcpiPm::Read(uint64_t offset, std::span<uint8_t> data) {
  // One sample for all bytes of an access.
  const auto timer = static_cast<uint32_t>(Ticks());
  // The timer is what guests read often, and depends on nothing else.
  if (offset == kTimer && data.size() == kPmTimerLength) {
    for (size_t i = 0; i < data.size(); ++i) data[i] = ByteOf(timer, i);
    return;
  }
  std::lock_guard lock(mutex_);
  CountCarries();
  for (uint8_t& byte : data) byte = ReadByte(offset++, timer);
}

void AcpiPm::Write(uint64_t offset, std::span<const uint8_t> data) {
  bool power_off = false;
  {
    std::lock_guard lock(mutex_);
    CountCarries();
    for (const uint8_t byte : data) power_off |= WriteByte(offset++, byte);
    Update();
  }
  if (power_off) power_.OnPowerEvent(PowerEvent::kPowerOff);
}

uint8_t AcpiPm::ReadByte(uint64_t offset, uint32_t timer) {
  if (offset < kEnable) return ByteOf(state_.status, offset - kStatus);
  if (offset < kControl) return ByteOf(state_.enable, offset - kEnable);
  if (offset < kControl + kPm1ControlLength) {
    return ByteOf(state_.control | kSciEnable, offset - kControl);
  }
  if (offset >= kTimer && offset < kTimer + kPmTimerLength) return ByteOf(timer, offset - kTimer);
  return 0xFF;
}

bool AcpiPm::WriteByte(uint64_t offset, uint8_t value) {
  if (offset < kEnable) {
    // Writing ones clears.
    state_.status &= static_cast<uint16_t>(~WithByte(0, offset - kStatus, value));
  } else if (offset < kControl) {
    state_.enable = WithByte(state_.enable, offset - kEnable, value) & kEnableMask;
  } else if (offset < kControl + kPm1ControlLength) {
    const uint16_t control = WithByte(state_.control, offset - kControl, value);
    state_.control = control & kControlMask;
    if (control & kSleepEnable) {
      const int type = (control & kSleepTypeMask) >> kSleepTypeShift;
      if (type == kSleepTypeS5) return true;
      log_.Log(LogLevel::kWarning, "acpi",
               absl::StrCat("guest asked for sleep type ", type, ", which it doesn't have"));
    }
  }
  return false;
}

void AcpiPm::CountCarries() {
  const uint64_t carries = Ticks() >> kCarryShift;
  if (carries == state_.timer_carries) return;
  state_.timer_carries = carries;
  state_.status |= kTimerBit;
}

void AcpiPm::Update() {
  const bool asserted = (state_.status & state_.enable) != 0;
  if (asserted != sci_asserted_) {
    sci_asserted_ = asserted;
    sci_->Set(asserted);
  }
  // Time needs watching only while its interrupt is wanted and not there yet.
  const bool watch = running_ && (state_.enable & kTimerBit) && !(state_.status & kTimerBit);
  if (watch == carry_timer_set_) return;
  carry_timer_set_ = watch;
  if (watch) {
    const uint64_t carry = (state_.timer_carries + 1) << kCarryShift;
    const uint64_t now = Ticks();
    carry_timer_.Set(now < carry ? (carry - now) * kNsPerSecond / kPmTimerHz + 1 : 0);
  } else {
    carry_timer_.Cancel();
  }
}

void AcpiPm::OnTimer() {
  std::lock_guard lock(mutex_);
  carry_timer_set_ = false;
  if (!running_) return;
  CountCarries();
  Update();
}

void AcpiPm::PressPowerButton() {
  std::lock_guard lock(mutex_);
  state_.status |= kPowerButtonBit;
  Update();
}

void AcpiPm::Start() {
  std::lock_guard lock(mutex_);
  running_ = true;
  Update();
}

void AcpiPm::Stop() {
  std::lock_guard lock(mutex_);
  running_ = false;
  Update();
}

void AcpiPm::Reset() {
  std::lock_guard lock(mutex_);
  state_ = {};
  // The timer runs on through a reset; what it did before isn't the new guest's affair.
  state_.timer_carries = Ticks() >> kCarryShift;
  Update();
}

AcpiPmState AcpiPm::State() const {
  std::lock_guard lock(mutex_);
  return state_;
}

void AcpiPm::Inspect(inspect::Node& node) const {
  const AcpiPmState state = State();
  node.Address("status", state.status);
  node.Address("enable", state.enable);
  node.Address("control", state.control);
}

}  // namespace bothy::chipset
