// REPORT SUPPORTED OPERATION CODES and REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-5, 6.35,
// 6.36).
#include <algorithm>
#include <array>

#include "scsi/command_table.h"
#include "support/endian.h"

namespace bothy::scsi {
namespace {

// REPORTING OPTIONS.
constexpr uint8_t kAllCommands = 0;
constexpr uint8_t kOneOpcode = 1;
constexpr uint8_t kOneServiceAction = 2;
constexpr uint8_t kOneEither = 3;

// No timeouts are recommended: a descriptor of zeros.
constexpr size_t kTimeoutsBytes = 12;
void AppendTimeouts(std::vector<uint8_t>& data) {
  data.resize(data.size() + kTimeoutsBytes);
  StoreBe(&data[data.size() - kTimeoutsBytes], static_cast<uint16_t>(kTimeoutsBytes - 2));
}

std::vector<uint8_t> AllCommands(bool timeouts, bool can_unmap) {
  constexpr uint8_t kHasTimeouts = 0x02;
  constexpr uint8_t kHasServiceAction = 0x01;
  std::vector<uint8_t> data(4);
  for (const CommandEntry& entry : CommandEntry::All()) {
    if (entry.has(kUnmaps) && !can_unmap) continue;
    std::array<uint8_t, 8> descriptor = {entry.opcode};
    if (entry.has_service_action()) {
      StoreBe(&descriptor[2], static_cast<uint16_t>(entry.service_action));
      descriptor[5] |= kHasServiceAction;
    }
    if (timeouts) descriptor[5] |= kHasTimeouts;
    StoreBe(&descriptor[6], uint16_t{entry.length});
    data.insert(data.end(), descriptor.begin(), descriptor.end());
    if (timeouts) AppendTimeouts(data);
  }
  StoreBe(data.data(), static_cast<uint32_t>(data.size() - 4));
  return data;
}

// `entry` is null for a command that there isn't.
std::vector<uint8_t> OneCommand(const CommandEntry* entry, bool timeouts) {
  constexpr uint8_t kUnsupported = 1;
  constexpr uint8_t kSupported = 3;
  constexpr uint8_t kHasTimeouts = 0x80;
  std::vector<uint8_t> data(4);
  data[1] = entry == nullptr ? kUnsupported : kSupported;
  if (entry == nullptr) return data;
  StoreBe(&data[2], uint16_t{entry->length});
  data.insert(data.end(), entry->usage.begin(), entry->usage.begin() + entry->length);
  if (timeouts) {
    data[1] |= kHasTimeouts;
    AppendTimeouts(data);
  }
  return data;
}

}  // namespace

void LogicalUnit::ReportOpcodes(Command& command) {
  const uint8_t* cdb = command.cdb();
  const bool timeouts = (cdb[2] & 0x80) != 0;  // RCTD
  const uint8_t options = cdb[2] & 0x07;
  const uint32_t allocation_length = LoadBe<uint32_t>(cdb + 6);
  if (options == kAllCommands) {
    return Return(command, AllCommands(timeouts, can_unmap()), allocation_length);
  }
  if (options > kOneEither) return InvalidField(command, 2, 2);
  const std::span<const CommandEntry> entries = CommandEntry::Find(cdb[3]);
  const bool has_actions = !entries.empty() && entries.front().has_service_action();
  if (options == kOneOpcode && has_actions) return InvalidField(command, 2, 2);
  if (options == kOneServiceAction && !entries.empty() && !has_actions) {
    return InvalidField(command, 2, 2);
  }
  const uint16_t action = LoadBe<uint16_t>(cdb + 4);
  const auto found = std::find_if(
      entries.begin(), entries.end(), [action, has_actions](const CommandEntry& entry) {
        return has_actions ? static_cast<uint16_t>(entry.service_action) == action : action == 0;
      });
  const bool supported = found != entries.end() && (!found->has(kUnmaps) || can_unmap());
  Return(command, OneCommand(supported ? &*found : nullptr, timeouts), allocation_length);
}

void LogicalUnit::ReportTaskManagement(Command& command) {
  const uint8_t* cdb = command.cdb();
  const bool extended = (cdb[2] & 0x80) != 0;  // REPD
  std::vector<uint8_t> data(extended ? 16 : 4);
  data[0] = 0xDC;  // ATS, ATSS, CTSS, LURS, QTS
  data[1] = 0x03;  // QTSS, ITNRS
  if (extended) data[3] = static_cast<uint8_t>(data.size() - 4);
  Return(command, data, LoadBe<uint32_t>(cdb + 6));
}

}  // namespace bothy::scsi
