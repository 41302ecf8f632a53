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

absl::Status NoUnit(uint16_t lun) {
  return absl::NotFoundError(absl::StrCat("lun ", lun, ": no disk is there"));
}

// Awaits a function that is called once and calls back once, later.
template <typename Begin>
class Callback {
 public:
  explicit Callback(Begin begin) : begin_(std::move(begin)) {}
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiting) {
    begin_([waiting] { waiting.resume(); });
  }
  void await_resume() const noexcept {}

 private:
  Begin begin_;
};

}  // namespace

Target::~Target() {
  CHECK(running_ == 0 && parked_.empty() && !on_quiet_);
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
                   .field = FieldPointer{FieldPointer::Place::kCdb, byte, {}},
                   .information = {}};
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
                   .field = FieldPointer{FieldPointer::Place::kCdb, 2, {}},
                   .information = {}};
        break;
      }
      OnInventoryReported();
      data = *std::move(list);
      allocation_length = LoadBe<uint32_t>(cdb + 6);
      break;
    }
    case kRequestSense: {
      const bool descriptors = (cdb[1] & 0x01) != 0;
      encoded.Encode(
          {.condition = kUnitNotSupported, .field = {}, .information = {}},
          descriptors ? EncodedSense::Format::kDescriptor : EncodedSense::Format::kFixed);
      data.assign(encoded.bytes().begin(), encoded.bytes().end());
      allocation_length = cdb[4];
      break;
    }
    default:
      failure = {.condition = kUnitNotSupported, .field = {}, .information = {}};
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
        absl::StrCat("lun ", lun, " is out of range 0..", kMaxLuns - 1));
  }
  if (units_[lun] != nullptr) {
    return absl::AlreadyExistsError(absl::StrCat("lun ", lun, ": another disk is there"));
  }
  RETURN_IF_ERROR(CheckUnit(*disk, options));
  LogicalUnitOptions named = WithUniqueSerial(lun, *disk, options);
  UnitHost& host = *this;
  units_[lun] = std::make_unique<LogicalUnit>(host, std::move(disk), std::move(named));
  Publish(lun, units_[lun]->statistics());
  RaiseInventoryChange(lun);
  return absl::OkStatus();
}

LogicalUnitOptions Target::WithUniqueSerial(uint16_t lun, const disk::Disk& disk,
                                            const LogicalUnitOptions& options) const {
  LogicalUnitOptions named = options;
  if (!named.serial.empty()) return named;
  named.serial = DefaultSerial(disk);
  for (uint16_t other = 0; other < kMaxLuns; ++other) {
    if (other == lun || units_[other] == nullptr) continue;
    if (units_[other]->options().serial != named.serial) continue;
    // A copy of an image beside it: a guest that sees one name twice takes them for one disk.
    named.serial += absl::StrCat("-", lun);
    break;
  }
  return named;
}

Task<absl::StatusOr<std::unique_ptr<disk::Disk>>> Target::Detach(uint16_t lun) {
  if (!Has(lun)) co_return NoUnit(lun);
  if (units_[lun]->held() && units_[lun]->disk() != nullptr) {
    co_return absl::FailedPreconditionError(
        absl::StrCat("lun ", lun, ": its medium is being removed"));
  }
  const std::unique_ptr<LogicalUnit> unit = std::move(units_[lun]);
  leaving_.push_back(unit.get());
  Publish(lun, nullptr);
  RaiseInventoryChange(lun);
  // What was meant for this disk mustn't reach another one that comes to its place.
  for (Command* parked = parked_.first(); parked != nullptr; parked = CommandList::Next(*parked)) {
    if (parked->input_.lun == lun) parked->unit_gone_ = true;
  }
  for (CommandList waiting = unit->TakeWaiting(); !waiting.empty();) {
    Command& command = waiting.PopFront();
    command.unit_gone_ = true;
    Execute(command);
  }
  Callback idle([&unit](std::function<void()> done) { unit->WhenIdle(std::move(done)); });
  co_await idle;
  std::erase(leaving_, unit.get());
  co_return unit->TakeDisk();
}

Task<absl::StatusOr<std::unique_ptr<disk::Disk>>> Target::RemoveMedium(uint16_t lun) {
  LogicalUnit* const unit = Unit(lun);
  if (unit == nullptr) co_return NoUnit(lun);
  if (unit->held()) {
    co_return absl::FailedPreconditionError(absl::StrCat("lun ", lun, ": its medium is out"));
  }
  unit->HoldForMedium();
  Callback idle([unit](std::function<void()> done) { unit->WhenIdle(std::move(done)); });
  co_await idle;
  co_return unit->TakeDisk();
}

absl::Status Target::InsertMedium(uint16_t lun, std::unique_ptr<disk::Disk> disk,
                                  const LogicalUnitOptions& options, MediumChange change) {
  LogicalUnit* const unit = Unit(lun);
  if (unit == nullptr) return NoUnit(lun);
  if (!unit->held() || unit->disk() != nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("lun ", lun, ": its medium is not out"));
  }
  RETURN_IF_ERROR(CheckUnit(*disk, options));
  LogicalUnitOptions named = WithUniqueSerial(lun, *disk, options);
  const bool renamed =
      named.serial != unit->options().serial || named.product != unit->options().product;
  unit->PutDisk(std::move(disk), std::move(named));
  if (change == MediumChange::kChanged) {
    unit->Raise(kMediumChanged);
    unit->Raise(kCapacityChanged);
    if (renamed) unit->Raise(kInquiryDataChanged);
  }
  unit->StartWaiting();
  return absl::OkStatus();
}

Task<absl::StatusOr<std::unique_ptr<disk::Disk>>> Target::ReplaceMedium(
    uint16_t lun, std::unique_ptr<disk::Disk> disk, LogicalUnitOptions options) {
  const absl::Status checked = CheckUnit(*disk, options);
  if (!checked.ok()) co_return checked;
  absl::StatusOr<std::unique_ptr<disk::Disk>> old = co_await RemoveMedium(lun);
  if (!old.ok()) co_return old;
  const absl::Status inserted = InsertMedium(lun, std::move(disk), options, MediumChange::kChanged);
  CHECK_OK(inserted);
  co_return old;
}

absl::StatusOr<bool> Target::RefreshCapacity(uint16_t lun) {
  LogicalUnit* const unit = Unit(lun);
  if (unit == nullptr) return NoUnit(lun);
  if (unit->disk() == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("lun ", lun, ": its medium is out"));
  }
  const disk::Geometry before = unit->disk()->geometry();
  RETURN_IF_ERROR(unit->disk()->Refresh());
  unit->Describe();
  if (unit->disk()->geometry() == before) return false;
  unit->Raise(kCapacityChanged);
  return true;
}

disk::Disk* Target::disk(uint16_t lun) {
  LogicalUnit* const unit = Unit(lun);
  return unit == nullptr ? nullptr : unit->disk();
}

void Target::Quiesce(std::function<void()> done) {
  CHECK(!paused_ && !on_quiet_);
  paused_ = true;
  on_quiet_ = std::move(done);
  if (running_ == 0) OnQuiet();
}

void Target::OnQuiet() {
  Post([this] { std::exchange(on_quiet_, nullptr)(); });
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
