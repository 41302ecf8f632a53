#include "scsi/logical_unit.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "support/check.h"
#include "support/endian.h"

namespace bothy::scsi {
namespace {

constexpr uint8_t kReadCapacity16Action = 0x10;
constexpr uint8_t kGetLbaStatusAction = 0x12;
constexpr uint8_t kReportOpcodesAction = 0x0C;

}  // namespace

// What there is: also the answer to REPORT SUPPORTED OPERATION CODES.
std::span<const LogicalUnit::Entry> LogicalUnit::Table() {
  static constexpr std::array kTable = {
      Entry{0x00, 6, &LogicalUnit::TestUnitReady, false},
      Entry{0x03, 6, &LogicalUnit::RequestSense, true},
      Entry{0x08, 6, &LogicalUnit::Read, false},
      Entry{0x0A, 6, &LogicalUnit::Write, false},
      Entry{0x12, 6, &LogicalUnit::Inquiry, true},
      Entry{0x15, 6, &LogicalUnit::ModeSelect, false},
      Entry{0x1A, 6, &LogicalUnit::ModeSense, false},
      Entry{0x1B, 6, &LogicalUnit::StartStopUnit, false},
      Entry{0x1D, 6, &LogicalUnit::SendDiagnostic, false},
      Entry{0x1E, 6, &LogicalUnit::PreventMediumRemoval, false},
      Entry{0x25, 10, &LogicalUnit::ReadCapacity10, false},
      Entry{0x28, 10, &LogicalUnit::Read, false},
      Entry{0x2A, 10, &LogicalUnit::Write, false},
      Entry{0x2E, 10, &LogicalUnit::WriteAndVerify, false},
      Entry{0x2F, 10, &LogicalUnit::Verify, false},
      Entry{0x35, 10, &LogicalUnit::SynchronizeCache, false},
      Entry{0x41, 10, &LogicalUnit::WriteSame, false},
      Entry{0x42, 10, &LogicalUnit::Unmap, false},
      Entry{0x55, 10, &LogicalUnit::ModeSelect, false},
      Entry{0x5A, 10, &LogicalUnit::ModeSense, false},
      Entry{0x88, 16, &LogicalUnit::Read, false},
      Entry{0x8A, 16, &LogicalUnit::Write, false},
      Entry{0x8E, 16, &LogicalUnit::WriteAndVerify, false},
      Entry{0x8F, 16, &LogicalUnit::Verify, false},
      Entry{0x91, 16, &LogicalUnit::SynchronizeCache, false},
      Entry{0x93, 16, &LogicalUnit::WriteSame, false},
      Entry{0x9E, 16, &LogicalUnit::ServiceActionIn16, false},
      Entry{0xA3, 12, &LogicalUnit::MaintenanceIn, false},
      Entry{0xA8, 12, &LogicalUnit::Read, false},
      Entry{0xAA, 12, &LogicalUnit::Write, false},
      Entry{0xAE, 12, &LogicalUnit::WriteAndVerify, false},
      Entry{0xAF, 12, &LogicalUnit::Verify, false},
  };
  return kTable;
}

const LogicalUnit::Entry* LogicalUnit::Find(uint8_t opcode) {
  const std::span<const Entry> table = Table();
  const auto at =
      std::lower_bound(table.begin(), table.end(), opcode,
                       [](const Entry& entry, uint8_t code) { return entry.opcode < code; });
  return at != table.end() && at->opcode == opcode ? &*at : nullptr;
}

LogicalUnit::LogicalUnit(std::unique_ptr<disk::Disk> disk, std::string serial)
    : disk_(std::move(disk)), serial_(std::move(serial)), attentions_{kPowerOn} {}

LogicalUnit::~LogicalUnit() { CHECK(in_flight_ == 0); }

void LogicalUnit::Execute(Command& command) {
  command.unit_ = this;
  command.next_ = first_;
  command.previous_ = nullptr;
  if (first_ != nullptr) first_->previous_ = &command;
  first_ = &command;
  ++in_flight_;

  const Entry* entry = Find(command.input_.cdb[0]);
  if (entry == nullptr) return Check(command, kInvalidOpcode);
  if (!attentions_.empty() && !entry->despite_attention) {
    const Condition attention = attentions_.front();
    attentions_.erase(attentions_.begin());
    return Check(command, attention);
  }
  // NACA and the reserved bits of the control byte (SAM-5, 5.2).
  const auto control = static_cast<uint16_t>(entry->length - 1);
  if ((command.input_.cdb[control] & 0x04) != 0) return InvalidField(command, control);
  (this->*entry->handler)(command);
}

void LogicalUnit::Good(Command& command) {
  command.status = Status::kGood;
  End(command);
}

void LogicalUnit::Check(Command& command, const Condition& condition) {
  command.status = Status::kCheckCondition;
  command.sense_.Set(condition);
  End(command);
}

void LogicalUnit::InvalidField(Command& command, uint16_t byte) {
  command.status = Status::kCheckCondition;
  command.sense_.Set(kInvalidFieldInCdb);
  command.sense_.PointAt(byte, /*in_cdb=*/true);
  End(command);
}

void LogicalUnit::InvalidParameter(Command& command, uint16_t byte) {
  command.status = Status::kCheckCondition;
  command.sense_.Set(kInvalidFieldInParameters);
  command.sense_.PointAt(byte, /*in_cdb=*/false);
  End(command);
}

void LogicalUnit::EndAs(Command& command, Outcome outcome) {
  command.outcome = outcome;
  End(command);
}

void LogicalUnit::End(Command& command) {
  if (command.status == Status::kCheckCondition) {
    command.residual = std::max(command.input_.data_in_bytes, command.input_.data_out_bytes);
    command.data_in_written = 0;
  }
  // Marked while its I/O was under way; what it did is done.
  if (command.abort_as_ != Outcome::kOk) command.outcome = command.abort_as_;
  if (command.next_ != nullptr) command.next_->previous_ = command.previous_;
  (command.previous_ != nullptr ? command.previous_->next_ : first_) = command.next_;
  command.unit_ = nullptr;
  --in_flight_;
  command.Complete();
  if (in_flight_ != 0) return;
  // The last of these may destroy the unit.
  for (const std::function<void()>& idle : std::exchange(on_idle_, {})) idle();
}

void LogicalUnit::Return(Command& command, std::span<const uint8_t> data,
                         uint64_t allocation_length) {
  size_t left = std::min<uint64_t>({data.size(), allocation_length, command.input_.data_in_bytes});
  command.data_in_written = left;
  command.residual = command.input_.data_in_bytes - left;
  for (const iovec& buffer : command.input_.data_in) {
    const size_t part = std::min(buffer.iov_len, left);
    std::memcpy(buffer.iov_base, data.data(), part);
    data = data.subspan(part);
    left -= part;
    if (left == 0) break;
  }
  Good(command);
}

size_t LogicalUnit::Abort(Outcome as, const uint64_t* tag) {
  size_t count = 0;
  for (Command* command = first_; command != nullptr; command = command->next_) {
    if (tag != nullptr && command->input_.tag != *tag) continue;
    command->abort_as_ = as;
    ++count;
  }
  return count;
}

bool LogicalUnit::Knows(uint64_t tag) const {
  for (const Command* command = first_; command != nullptr; command = command->next_) {
    if (command->input_.tag == tag) return true;
  }
  return false;
}

void LogicalUnit::WhenIdle(std::function<void()> idle) {
  if (in_flight_ == 0) return idle();
  on_idle_.push_back(std::move(idle));
}

std::unique_ptr<disk::Disk> LogicalUnit::ReplaceDisk(std::unique_ptr<disk::Disk> disk,
                                                     std::string serial) {
  CHECK(in_flight_ == 0);
  serial_ = std::move(serial);
  stopped_ = false;
  return std::exchange(disk_, std::move(disk));
}

LogicalUnit::Counters LogicalUnit::counters() const {
  const auto get = [](const std::atomic<uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  };
  return {.reads = get(reads_),
          .writes = get(writes_),
          .flushes = get(flushes_),
          .unmaps = get(unmaps_),
          .read_bytes = get(read_bytes_),
          .written_bytes = get(written_bytes_),
          .errors = get(errors_)};
}

std::string LogicalUnit::last_error() const {
  const std::lock_guard lock(error_mutex_);
  return last_error_;
}

void LogicalUnit::TestUnitReady(Command& command) {
  if (stopped_) return Check(command, kStopped);
  Good(command);
}

void LogicalUnit::StartStopUnit(Command& command) {
  const uint8_t flags = command.input_.cdb[4];
  // Power conditions and ejection are of other devices; the bits are accepted as no change.
  if ((flags & 0xF0) == 0 && (flags & 0x02) == 0) {
    // What stops keeps its data: NO_FLUSH isn't asked about.
    stopped_ = (flags & 0x01) == 0;
    if (stopped_) return SynchronizeCache(command);
  }
  Good(command);
}

void LogicalUnit::RequestSense(Command& command) {
  const bool descriptor = (command.input_.cdb[1] & 1) != 0;
  if (descriptor) return InvalidField(command, 1);
  Sense sense;
  sense.Set({});
  if (!attentions_.empty()) {
    sense.Set(attentions_.front());
    attentions_.erase(attentions_.begin());
  } else if (stopped_) {
    sense.Set(kStopped);
  }
  Return(command, sense.bytes(), command.input_.cdb[4]);
}

void LogicalUnit::PreventMediumRemoval(Command& command) {
  // The medium isn't the guest's to remove.
  Good(command);
}

void LogicalUnit::SendDiagnostic(Command& command) {
  // Only the default self-test, which has nothing to find.
  if ((command.input_.cdb[1] & 0x04) == 0) return InvalidField(command, 1);
  Good(command);
}

void LogicalUnit::ServiceActionIn16(Command& command) {
  switch (command.input_.cdb[1] & 0x1F) {
    case kReadCapacity16Action:
      return ReadCapacity16(command);
    case kGetLbaStatusAction:
      return GetLbaStatus(command);
    default:
      return InvalidField(command, 1);
  }
}

void LogicalUnit::MaintenanceIn(Command& command) {
  if ((command.input_.cdb[1] & 0x1F) != kReportOpcodesAction) return InvalidField(command, 1);
  ReportOpcodes(command);
}

// SPC-5, 6.35.
void LogicalUnit::ReportOpcodes(Command& command) {
  const uint8_t* cdb = command.input_.cdb.data();
  const uint32_t allocation = LoadBe<uint32_t>(cdb + 6);
  const uint8_t options = cdb[2] & 7;
  if ((cdb[2] & 0x80) != 0) return InvalidField(command, 2);  // RCTD: no timeouts are known
  std::vector<uint8_t> data;
  if (options == 0) {
    data.resize(4);
    for (const Entry& entry : Table()) {
      const std::array<uint8_t, 8> descriptor = {entry.opcode, 0, 0, 0, 0, 0, 0, entry.length};
      data.insert(data.end(), descriptor.begin(), descriptor.end());
    }
    StoreBe(data.data(), static_cast<uint32_t>(data.size() - 4));
    return Return(command, data, allocation);
  }
  if (options > 3) return InvalidField(command, 2);
  const Entry* entry = Find(cdb[3]);
  const uint16_t action = LoadBe<uint16_t>(cdb + 4);
  bool supported = entry != nullptr;
  if (cdb[3] == 0x9E) {
    supported = action == kReadCapacity16Action || action == kGetLbaStatusAction;
  } else if (cdb[3] == 0xA3) {
    supported = action == kReportOpcodesAction;
  } else if (options == 2) {
    return InvalidField(command, 4);  // this operation code has no service actions
  }
  data.resize(4);
  data[1] = supported ? 3 : 1;
  if (supported) {
    StoreBe(&data[2], uint16_t{entry->length});
    data.resize(4 + size_t{entry->length}, 0xFF);
    data[4] = entry->opcode;
  }
  Return(command, data, allocation);
}

}  // namespace bothy::scsi
