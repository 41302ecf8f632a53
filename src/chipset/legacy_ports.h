// I/O ports and interrupt lines (GSIs below 16) of the chipset's fixed devices, as they are on
// every PC; acpi/ describes them from these constants and machine/ registers them.
#pragma once

#include <array>
#include <cstdint>

namespace bothy::chipset {

struct SerialPortResources {
  uint16_t base;  // of 8 ports
  uint8_t irq;
};
// COM1..COM4. Two ports share each line: see SharedIrqLine.
inline constexpr std::array<SerialPortResources, 4> kSerialPorts = {{
    {0x3F8, 4},
    {0x2F8, 3},
    {0x3E8, 4},
    {0x2E8, 3},
}};
inline constexpr uint16_t kSerialPortSize = 8;

// Index and data port of the RTC and its CMOS RAM.
inline constexpr uint16_t kRtcBase = 0x70;
inline constexpr uint16_t kRtcSize = 2;
inline constexpr uint8_t kRtcIrq = 8;

// The keyboard controller's command port; of that controller only the reset pulse exists.
inline constexpr uint16_t kKeyboardCommandPort = 0x64;

// The reset control register (RST_CNT) of PC chipsets, one byte within PCI's CONFIG_ADDRESS.
inline constexpr uint16_t kResetControlPort = 0xCF9;
// What the FADT's RESET_VALUE says: a full reset in one write.
inline constexpr uint8_t kResetControlValue = 0x06;

// ACPI power management: one block of ports.
inline constexpr uint16_t kPmBase = 0x600;
inline constexpr uint16_t kPmSize = 0x0C;
inline constexpr uint16_t kPm1aEventPort = kPmBase;  // status (2 bytes), then enable (2 bytes)
inline constexpr uint8_t kPm1EventLength = 4;
inline constexpr uint16_t kPm1aControlPort = kPmBase + 4;
inline constexpr uint8_t kPm1ControlLength = 2;
inline constexpr uint16_t kPmTimerPort = kPmBase + 8;
inline constexpr uint8_t kPmTimerLength = 4;
inline constexpr uint8_t kSciIrq = 9;
// SLP_TYP values that \_S0 and \_S5 name.
inline constexpr uint8_t kSleepTypeS0 = 0;
inline constexpr uint8_t kSleepTypeS5 = 5;

}  // namespace bothy::chipset
