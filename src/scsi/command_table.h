// The commands that a logical unit has: how to find one's handler, and what REPORT SUPPORTED
// OPERATION CODES says of it.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "scsi/logical_unit.h"

namespace bothy::scsi {

// Bits of CommandEntry::traits.
inline constexpr uint8_t kDespiteAttention = 0x01;  // answers while a unit attention is pending
inline constexpr uint8_t kNeedsMedium = 0x02;       // NOT READY while stopped
inline constexpr uint8_t kWrites = 0x04;            // DATA PROTECT on a read-only unit
inline constexpr uint8_t kBulk = 0x08;              // needs the unit's private memory
inline constexpr uint8_t kAlone = 0x10;             // nothing else may be under way meanwhile
inline constexpr uint8_t kUnmaps = 0x20;            // only where unmapping does anything

struct CommandEntry {
  static constexpr int16_t kNoServiceAction = -1;
  using Handler = void (LogicalUnit::*)(Command&);

  uint8_t opcode;
  int16_t service_action;
  uint8_t length;  // of the CDB
  uint8_t traits;
  Handler handler;
  // For each byte of the CDB the bits that are looked at (SPC-5, 6.35.3); byte 0 is the opcode.
  std::array<uint8_t, 16> usage;

  [[nodiscard]] bool has(uint8_t trait) const { return (traits & trait) != 0; }
  [[nodiscard]] bool has_service_action() const { return service_action != kNoServiceAction; }

  // Ascending by opcode and service action.
  static std::span<const CommandEntry> All();
  // Those of one opcode: none, one, or one for each of its service actions.
  static std::span<const CommandEntry> Find(uint8_t opcode);
};

}  // namespace bothy::scsi
