#include "scsi/target.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "disk/buffers.h"
#include "scsi/inquiry.h"
#include "scsi/unit_identity.h"
#include "support/check.h"
#include "support/endian.h"

namespace bothy::scsi {
namespace {

constexpr uint8_t kRequestSense = 0x03;
constexpr uint8_t kInquiry = 0x12;
constexpr uint8_t kReportLuns = 0xA0;

}  // namespace

Target::~Target() {
  CHECK(running_ == 0 && parked_.empty() && leaving_.empty() && !on_quiet_);
  for (const std::unique_ptr<LogicalUnit>& unit : units_) CHECK(unit == nullptr);
}

void Target::Execute(Command& command) {
  if (paused()) return parked_.PushBack(command);
  if (command.unit_gone_) return ExecuteWithoutUnit(command);
  if (LogicalUnit* unit = Unit(command.input_.lun)) return unit->Execute(command);
  ExecuteWithoutUnit(command);
}

// SPC-5, 6.1: what a target answers for a place without a unit.
void Target::ExecuteWithoutUnit(Command& command) {
  const uint8_t* cdb = command.cdb();
  std::vector<uint8_t> data;
  uint64_t allocation_length = 0;
  SenseData failure;
  EncodedSense encoded;
  switch (cdb[0]) {
    case kInquiry: {
      if ((cdb[1] & 0x01) != 0 || cdb[2] != 0) {
        const auto byte = static_cast<uint16_t>(cdb[2] != 0 ? 2 : 1);
        failure = {.condition = kInvalidFieldInCdb,
                   .field = FieldPointer{FieldPointer::Place::kCdb, byte, {}}};
        break;
      }
      const auto inquiry = StandardInquiry(std::nullopt);
      data.assign(inquiry.begin(), inquiry.end());
      allocation_length = LoadBe<uint16_t>(cdb + 3);
      break;
    }
    case kReportLuns: {
      std::optional<std::vector<uint8_t>> list = LunList(Inventory(), cdb[2]);
      if (!list.has_value()) {
        failure = {.condition = kInvalidFieldInCdb,
                   .field = FieldPointer{FieldPointer::Place::kCdb, 2, {}}};
        break;
      }
      OnInventoryReported();
      data = *std::move(list);
      allocation_length = LoadBe<uint32_t>(cdb + 6);
      break;
    }
    case kRequestSense: {
      const bool descriptors = (cdb[1] & 0x01) != 0;
      encoded.Encode({.condition = kUnitNotSupported}, descriptors
                                                           ? EncodedSense::Format::kDescriptor
                                                           : EncodedSense::Format::kFixed);
      data.assign(encoded.bytes().begin(), encoded.bytes().end());
      allocation_length = cdb[4];
      break;
    }
    default:
      failure = {.condition = kUnitNotSupported};
  }
  const uint64_t length = std::min<uint64_t>(data.size(), allocation_length);
  if (failure.condition != kNoCondition) {
    command.status = Status::kCheckCondition;
    command.sense_.Encode(failure, EncodedSense::Format::kFixed);
  } else if (length > command.input_.data_in_bytes) {
    command.outcome = Outcome::kOverrun;
  } else {
    disk::CopyInto(command.input_.data_in, 0, std::span(data).first(length));
    command.data_in_written = length;
  }
  command.residual =
      command.input_.data_in_bytes - command.data_in_written + command.input_.data_out_bytes;
  command.Complete();
}

absl::Status Target::Attach(uint16_t lun, std::unique_ptr<disk::Disk> disk,
                            const LogicalUnitOptions& options) {
  if (lun >= kMaxLuns) {
    return absl::InvalidArgumentError(
        absl::StrCat("LUN ", lun, " is out of range 0..", kMaxLuns - 1));
  }
  if (units_[lun] != nullptr) {
    return absl::AlreadyExistsError(absl::StrCat("LUN ", lun, ": another disk is there"));
  }
  RETURN_IF_ERROR(CheckUnit(*disk, options));
  LogicalUnitOptions named = Named(lun, *disk, options);
  UnitHost& host = *this;
  units_[lun] = std::make_unique<LogicalUnit>(host, std::move(disk), std::move(named));
  Publish(lun, units_[lun]->statistics());
  RaiseInventoryChange(lun);
  return absl::OkStatus();
}

bool Target::IsSerialTaken(uint16_t lun, const std::string& serial) const {
  for (uint16_t other = 0; other < kMaxLuns; ++other) {
    if (other == lun || units_[other] == nullptr) continue;
    if (units_[other]->options().serial == serial) return true;
  }
  return false;
}

// A guest that sees one name twice takes the two for one disk.
LogicalUnitOptions Target::Named(uint16_t lun, const disk::Disk& disk,
                                 const LogicalUnitOptions& options) const {
  LogicalUnitOptions named = options;
  if (!named.serial.empty()) return named;
  named.serial = DefaultSerial(disk);
  if (IsSerialTaken(lun, named.serial)) named.serial = SerialOfPath(disk.path());
  if (IsSerialTaken(lun, named.serial)) named.serial += absl::StrCat("-", lun);
  return named;
}

void Target::Detach(uint16_t lun, DiskDone done) {
  CHECK(Has(lun));
  LogicalUnit& unit = *units_[lun];
  CHECK(!unit.held() || unit.disk() == nullptr);
  leaving_.push_back(std::move(units_[lun]));
  Publish(lun, nullptr);
  RaiseInventoryChange(lun);
  // What was meant for this disk mustn't reach another one that comes to its place.
  for (Command* parked = parked_.first(); parked != nullptr; parked = CommandList::Next(*parked)) {
    if (parked->input_.lun == lun) parked->unit_gone_ = true;
  }
  while (Command* waiting = unit.TakeWaiting()) {
    waiting->unit_gone_ = true;
    Execute(*waiting);
  }
  unit.WhenIdle([this, &unit, done = std::move(done)] {
    std::unique_ptr<disk::Disk> disk = unit.TakeDisk();
    std::erase_if(leaving_, [&unit](const auto& leaving) { return leaving.get() == &unit; });
    done(std::move(disk));
  });
}

void Target::TakeMedium(uint16_t lun, DiskDone done) {
  CHECK(Has(lun));
  LogicalUnit& unit = *units_[lun];
  CHECK(!unit.held());
  unit.HoldForMedium();
  unit.WhenIdle([&unit, done = std::move(done)] { done(unit.TakeDisk()); });
}

void Target::PutMedium(uint16_t lun, std::unique_ptr<disk::Disk> disk,
                       const LogicalUnitOptions& options, MediumChange change) {
  CHECK(Has(lun));
  LogicalUnit& unit = *units_[lun];
  CHECK(unit.held() && unit.disk() == nullptr);
  CHECK_OK(CheckUnit(*disk, options));
  LogicalUnitOptions named = Named(lun, *disk, options);
  const bool renamed =
      named.serial != unit.options().serial || named.product != unit.options().product;
  unit.PutDisk(std::move(disk), std::move(named));
  if (change == MediumChange::kChanged) {
    unit.Raise(kMediumChanged);
    unit.Raise(kCapacityChanged);
    if (renamed) unit.Raise(kInquiryDataChanged);
  }
  unit.StartWaiting();
}

absl::StatusOr<bool> Target::RefreshCapacity(uint16_t lun) {
  LogicalUnit* const unit = Unit(lun);
  if (unit == nullptr) return absl::NotFoundError(absl::StrCat("LUN ", lun, ": no disk is there"));
  if (unit->disk() == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("LUN ", lun, ": the medium is out"));
  }
  const disk::Geometry before = unit->disk()->geometry();
  RETURN_IF_ERROR(unit->disk()->Refresh());
  unit->Describe();
  if (unit->disk()->geometry() == before) return false;
  unit->Raise(kCapacityChanged);
  return true;
}

disk::Disk* Target::disk(uint16_t lun) const {
  const LogicalUnit* const unit = Unit(lun);
  return unit == nullptr ? nullptr : unit->disk();
}

void Target::Quiesce(std::function<void()> done) {
  CHECK(!paused_ && !on_quiet_);
  paused_ = true;
  on_quiet_ = std::move(done);
  if (running_ == 0) SettleUnits();
}

void Target::Release() {
  CHECK(running_ > 0);
  if (--running_ == 0 && on_quiet_) OnQuiet();
}

void Target::OnQuiet() {
  Post([this] { SettleUnits(); });
}

void Target::SettleUnits() {
  // Somebody holds it again, or it was let go of twice in the meantime.
  if (!on_quiet_ || running_ != 0 || settling_ != 0) return;
  std::vector<LogicalUnit*> units;
  for (const auto& unit : units_) units.push_back(unit.get());
  for (const auto& unit : leaving_) units.push_back(unit.get());
  std::erase_if(units,
                [](const LogicalUnit* unit) { return unit == nullptr || unit->disk() == nullptr; });
  // Whoever waited for a unit's disk has the first turn.
  if (std::any_of(units.begin(), units.end(),
                  [](const LogicalUnit* unit) { return unit->handing_over(); })) {
    return Post([this] { SettleUnits(); });
  }
  held_since_ = false;
  settling_ = units.size() + 1;
  for (LogicalUnit* unit : units) {
    unit->Settle([this] {
      if (--settling_ == 0) Post([this] { OnSettled(); });
    });
  }
  if (--settling_ == 0) OnSettled();
}

void Target::OnSettled() {
  if (!on_quiet_) return;
  // A flush that somebody made meanwhile may have set its disk working again.
  if (held_since_) return SettleUnits();
  std::exchange(on_quiet_, nullptr)();
}

void Target::Resume() {
  if (!paused_) return;
  CHECK(!on_quiet_);
  paused_ = false;
  for (const std::unique_ptr<LogicalUnit>& unit : units_) {
    if (unit != nullptr) unit->StartWaiting();
  }
  for (CommandList parked = std::exchange(parked_, {}); !parked.empty();) {
    Execute(parked.PopFront());
  }
}

std::vector<uint16_t> Target::Inventory() const {
  std::vector<uint16_t> luns;
  for (uint16_t lun = 0; lun < kMaxLuns; ++lun) {
    if (units_[lun] != nullptr) luns.push_back(lun);
  }
  return luns;
}

// SPC-5, 6.33.1.
void Target::OnInventoryReported() {
  for (const std::unique_ptr<LogicalUnit>& unit : units_) {
    if (unit != nullptr) unit->ClearAttention(kReportedLunsChanged);
  }
}

void Target::RaiseInventoryChange(uint16_t lun) {
  for (uint16_t other = 0; other < kMaxLuns; ++other) {
    if (other != lun && units_[other] != nullptr) units_[other]->Raise(kReportedLunsChanged);
  }
}

void Target::Publish(uint16_t lun, std::shared_ptr<const UnitStatistics> statistics) {
  const std::lock_guard lock(snapshot_mutex_);
  statistics_[lun] = std::move(statistics);
}

std::vector<UnitSnapshot> Target::Snapshot() const {
  std::array<std::shared_ptr<const UnitStatistics>, kMaxLuns> units;
  {
    const std::lock_guard lock(snapshot_mutex_);
    units = statistics_;
  }
  std::vector<UnitSnapshot> snapshots;
  for (uint16_t lun = 0; lun < kMaxLuns; ++lun) {
    if (units[lun] == nullptr) continue;
    snapshots.push_back(units[lun]->Snapshot());
    snapshots.back().lun = lun;
  }
  return snapshots;
}

}  // namespace bothy::scsi
