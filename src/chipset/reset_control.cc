#include "chipset/reset_control.h"

#include <algorithm>

namespace bothy::chipset {
namespace {

constexpr uint8_t kResetCpu = 0x04;
// SYS_RST, RST_CPU and FULL_RST; the others are reserved and read as zero.
constexpr uint8_t kResetControlMask = 0x0E;

constexpr uint8_t kPulseResetLine = 0xFE;

}  // namespace

void ResetControl::Read(uint64_t /*offset*/, std::span<uint8_t> data) {
  // The register is one byte; a wider access that was registered for reads it in its first.
  std::fill(data.begin(), data.end(), uint8_t{0});
  data[0] = value_;
}

void ResetControl::Write(uint64_t /*offset*/, std::span<const uint8_t> data) {
  const uint8_t value = data[0] & kResetControlMask;
  const uint8_t old = value_.exchange(value);
  if (~old & value & kResetCpu) power_.OnPowerEvent(PowerEvent::kReset);
}

void KeyboardReset::Read(uint64_t /*offset*/, std::span<uint8_t> data) {
  std::fill(data.begin(), data.end(), uint8_t{0});
}

void KeyboardReset::Write(uint64_t /*offset*/, std::span<const uint8_t> data) {
  if (data[0] == kPulseResetLine) power_.OnPowerEvent(PowerEvent::kReset);
}

}  // namespace bothy::chipset
