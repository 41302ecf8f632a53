#include "scsi/target.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "scsi/inquiry.h"
#include "support/check.h"
#include "support/endian.h"

namespace bothy::scsi {
namespace {

constexpr uint8_t kRequestSense = 0x03;
constexpr uint8_t kInquiry = 0x12;
constexpr uint8_t kReportLuns = 0xA0;

// Data of a command that no unit answers, no more than there is room for.
uint64_t Deliver(std::span<const iovec> buffers, std::span<const uint8_t> data) {
  uint64_t written = 0;
  for (const iovec& buffer : buffers) {
    const size_t part = std::min(buffer.iov_len, data.size());
    std::memcpy(buffer.iov_base, data.data(), part);
    data = data.subspan(part);
    written += part;
  }
  return written;
}

// Calls `done` when it has been called for each of several.
std::function<void()> AfterAll(size_t count, std::function<void()> done) {
  auto left = std::make_shared<size_t>(count);
  return [left, done = std::move(done)] {
    if (--*left == 0) done();
  };
}

}  // namespace

Target::~Target() {
  for (const auto& unit : units_) CHECK(unit == nullptr);
}

void Target::Execute(Command& command) {
  if (ReportLuns(command)) return command.Complete();
  const uint16_t lun = command.input_.lun;
  if (lun >= kMaxLuns || units_[lun] == nullptr) return ExecuteWithoutUnit(command);
  if (busy_[lun]) {
    command.status = Status::kBusy;
    return command.Complete();
  }
  units_[lun]->Execute(command);
}

// SPC-5, 6.33. Any unit answers it, and a place without one.
bool Target::ReportLuns(Command& command) {
  const uint8_t* cdb = command.input_.cdb.data();
  if (cdb[0] != kReportLuns) return false;
  std::vector<uint8_t> data(8);
  constexpr uint8_t kWellKnownOnly = 0x01;
  const uint8_t select = cdb[2];
  if (select > 2) {
    command.status = Status::kCheckCondition;
    command.sense_.Set(kInvalidFieldInCdb);
    command.sense_.PointAt(2, /*in_cdb=*/true);
    return true;
  }
  for (uint16_t lun = 0; lun < kMaxLuns && select != kWellKnownOnly; ++lun) {
    if (units_[lun] == nullptr) continue;
    // Peripheral device addressing.
    data.insert(data.end(), {0, static_cast<uint8_t>(lun), 0, 0, 0, 0, 0, 0});
  }
  StoreBe(data.data(), static_cast<uint32_t>(data.size() - 8));
  const uint64_t allocation = LoadBe<uint32_t>(cdb + 6);
  const size_t length = std::min<uint64_t>(allocation, data.size());
  command.data_in_written = Deliver(command.input_.data_in, {data.data(), length});
  command.residual = command.input_.data_in_bytes - command.data_in_written;
  return true;
}

void Target::ExecuteWithoutUnit(Command& command) {
  const uint8_t* cdb = command.input_.cdb.data();
  const uint64_t room = command.input_.data_in_bytes;
  if (cdb[0] == kInquiry && (cdb[1] & 1) == 0 && cdb[2] == 0) {
    const auto data = StandardInquiry(/*present=*/false);
    const size_t length = std::min<size_t>(LoadBe<uint16_t>(cdb + 3), data.size());
    command.data_in_written = Deliver(command.input_.data_in, {data.data(), length});
    command.residual = room - command.data_in_written;
  } else if (cdb[0] == kRequestSense) {
    Sense sense;
    sense.Set(kUnitNotSupported);
    const size_t length = std::min<size_t>(cdb[4], sense.bytes().size());
    command.data_in_written = Deliver(command.input_.data_in, sense.bytes().first(length));
    command.residual = room - command.data_in_written;
  } else {
    command.status = Status::kCheckCondition;
    command.sense_.Set(kUnitNotSupported);
    command.residual = std::max(room, command.input_.data_out_bytes);
  }
  command.Complete();
}

void Target::Manage(TaskFunction function, uint16_t lun, uint64_t tag,
                    std::function<void(TaskResponse)> done) {
  const auto complete = [done] { done(TaskResponse::kComplete); };
  if (function == TaskFunction::kNexusReset) {
    const auto after = AfterAll(kMaxLuns, complete);
    for (const auto& unit : units_) {
      if (unit == nullptr) {
        after();
        continue;
      }
      unit->Abort(Outcome::kReset, nullptr);
      unit->Raise(kUnitReset);
      unit->WhenIdle(after);
    }
    return;
  }
  if (lun >= kMaxLuns || units_[lun] == nullptr) return done(TaskResponse::kIncorrectLun);
  LogicalUnit& unit = *units_[lun];
  switch (function) {
    case TaskFunction::kAbortTask:
      unit.Abort(Outcome::kAborted, &tag);
      return unit.WhenIdle(complete);
    case TaskFunction::kAbortTaskSet:
    case TaskFunction::kClearTaskSet:
      unit.Abort(Outcome::kAborted, nullptr);
      return unit.WhenIdle(complete);
    case TaskFunction::kLogicalUnitReset:
      unit.Abort(Outcome::kReset, nullptr);
      unit.Raise(kUnitReset);
      return unit.WhenIdle(complete);
    case TaskFunction::kQueryTask:
      return done(unit.Knows(tag) ? TaskResponse::kSucceeded : TaskResponse::kComplete);
    case TaskFunction::kQueryTaskSet:
      return done(unit.idle() ? TaskResponse::kComplete : TaskResponse::kSucceeded);
    case TaskFunction::kClearAca:  // no command ever establishes one: NACA is refused
    case TaskFunction::kNexusReset:
      return done(TaskResponse::kRejected);
  }
}

void Target::Attach(uint16_t lun, std::unique_ptr<disk::Disk> disk, std::string serial) {
  CHECK(lun < kMaxLuns && units_[lun] == nullptr);
  auto unit = std::make_unique<LogicalUnit>(std::move(disk), std::move(serial));
  const std::lock_guard lock(units_mutex_);
  units_[lun] = std::move(unit);
}

void Target::Detach(uint16_t lun, std::function<void(std::unique_ptr<disk::Disk>)> done) {
  std::shared_ptr<LogicalUnit> unit;
  {
    const std::lock_guard lock(units_mutex_);
    unit = std::move(units_[lun]);
  }
  CHECK(unit != nullptr);
  LogicalUnit& leaving = *unit;
  leaving.WhenIdle(
      [unit = std::move(unit), done = std::move(done)] { done(unit->ReplaceDisk(nullptr, "")); });
}

void Target::TakeMedium(uint16_t lun, std::function<void(std::unique_ptr<disk::Disk>)> done) {
  CHECK(units_[lun] != nullptr && !busy_[lun]);
  busy_[lun] = true;
  units_[lun]->WhenIdle(
      [this, lun, done = std::move(done)] { done(units_[lun]->ReplaceDisk(nullptr, "")); });
}

void Target::PutMedium(uint16_t lun, std::unique_ptr<disk::Disk> disk, std::string serial) {
  CHECK(busy_[lun]);
  busy_[lun] = false;
  units_[lun]->ReplaceDisk(std::move(disk), std::move(serial));
  units_[lun]->Raise(kMediumChanged);
}

disk::Disk* Target::disk(uint16_t lun) {
  return units_[lun] == nullptr ? nullptr : units_[lun]->disk();
}

std::string_view Target::serial(uint16_t lun) const {
  return units_[lun] == nullptr ? std::string_view() : units_[lun]->serial();
}

void Target::Raise(uint16_t lun, const Condition& attention) {
  if (units_[lun] != nullptr) units_[lun]->Raise(attention);
}

void Target::Quiesce(std::function<void()> done) {
  const auto after = AfterAll(kMaxLuns, std::move(done));
  for (const auto& unit : units_) {
    if (unit == nullptr) {
      after();
    } else {
      unit->WhenIdle(after);
    }
  }
}

void Target::Reset() {
  for (const auto& unit : units_) {
    if (unit != nullptr) unit->Abort(Outcome::kReset, nullptr);
  }
}

void Target::ForEachUnit(absl::FunctionRef<void(uint16_t lun, const LogicalUnit&)> visit) const {
  const std::lock_guard lock(units_mutex_);
  for (uint16_t lun = 0; lun < kMaxLuns; ++lun) {
    if (units_[lun] != nullptr) visit(lun, *units_[lun]);
  }
}

}  // namespace bothy::scsi
