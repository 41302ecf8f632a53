// The PCI Express capability (PCI Express Base 5.0, 7.5.3): its registers by double word and the
// bits that are used here.
#pragma once

#include <cstdint>

namespace bothy::pci::express {

inline constexpr uint16_t kCapabilityBytes = 0x3C;

// Offsets within the capability.
inline constexpr uint16_t kCapabilities = 0x00;  // id, next, PCI Express Capabilities
inline constexpr uint16_t kDeviceCapabilities = 0x04;
inline constexpr uint16_t kDeviceControl = 0x08;  // and Device Status
inline constexpr uint16_t kLinkCapabilities = 0x0C;
inline constexpr uint16_t kLinkControl = 0x10;  // and Link Status
inline constexpr uint16_t kSlotCapabilities = 0x14;
inline constexpr uint16_t kSlotControl = 0x18;  // and Slot Status
inline constexpr uint16_t kLinkCapabilities2 = 0x2C;

// PCI Express Capabilities, as the upper half of the first double word.
inline constexpr uint32_t kVersion2 = 2U << 16;
inline constexpr uint32_t kTypeEndpoint = 0U << 20;
inline constexpr uint32_t kTypeRootPort = 4U << 20;
inline constexpr uint32_t kTypeIntegratedEndpoint = 9U << 20;
inline constexpr uint32_t kSlotImplemented = 1U << 24;

inline constexpr uint32_t kRoleBasedErrorReporting = 1U << 15;  // every function since 1.1

// Device Control: relaxed ordering, 512-byte read requests; all but the reset is the guest's.
inline constexpr uint32_t kDeviceControlReset = 0x2010;
inline constexpr uint32_t kDeviceControlWritable = 0x78FF;

// One lane of 2.5 GT/s: a link that guests have no reason to train, tune or wait longer for.
inline constexpr uint32_t kLinkSpeed2500 = 1U << 0;
inline constexpr uint32_t kLinkWidth1 = 1U << 4;
inline constexpr uint32_t kLinkActiveReporting = 1U << 20;
inline constexpr uint32_t kLinkPortNumberShift = 24;
inline constexpr uint32_t kLinkControlWritable = 0x00CB;  // ASPM, RCB, common clock, extended sync
inline constexpr uint32_t kLinkStatusShift = 16;
inline constexpr uint32_t kLinkActive = 1U << (kLinkStatusShift + 13);
inline constexpr uint32_t kLink2Speeds2500 = 1U << 1;

// Slot Capabilities.
inline constexpr uint32_t kSlotAttentionButton = 1U << 0;
inline constexpr uint32_t kSlotPowerIndicator = 1U << 4;
inline constexpr uint32_t kSlotHotPlug = 1U << 6;
inline constexpr uint32_t kSlotNoCommandCompleted = 1U << 18;
inline constexpr uint32_t kSlotNumberShift = 19;

// Slot Control, the lower half of its double word.
inline constexpr uint32_t kAttentionButtonEnable = 1U << 0;
inline constexpr uint32_t kPresenceChangedEnable = 1U << 3;
inline constexpr uint32_t kHotPlugInterruptEnable = 1U << 5;
inline constexpr uint32_t kPowerIndicatorShift = 8;
inline constexpr uint32_t kPowerIndicatorMask = 3U << kPowerIndicatorShift;
inline constexpr uint32_t kLinkChangedEnable = 1U << 12;

// Slot Status, the upper half.
inline constexpr uint32_t kAttentionButtonPressed = 1U << 16;
inline constexpr uint32_t kPresenceChanged = 1U << 19;
inline constexpr uint32_t kPresent = 1U << 22;
inline constexpr uint32_t kLinkChanged = 1U << 24;

}  // namespace bothy::pci::express
