#include "scsi/logical_unit.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "disk/buffers.h"
#include "scsi/command_table.h"
#include "scsi/disk_errors.h"
#include "scsi/limits.h"
#include "scsi/unit_identity.h"
#include "support/check.h"
#include "support/task.h"

namespace bothy::scsi {

absl::Status CheckUnit(const disk::Disk& disk, const LogicalUnitOptions& options) {
  const disk::Geometry& geometry = disk.geometry();
  const uint32_t block = geometry.logical_sector_bytes;
  if (!std::has_single_bit(block) || block < 512 || block > kMaxBlockBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(disk.path(), ": sectors of ", block, " bytes are not supported"));
  }
  if (geometry.size_bytes == 0 || geometry.size_bytes % block != 0) {
    return absl::InvalidArgumentError(absl::StrCat(disk.path(), ": ", geometry.size_bytes,
                                                   " bytes are no disk of whole sectors"));
  }
  if (!options.serial.empty()) {
    const absl::Status status = CheckInquiryText(options.serial, kMaxSerialBytes);
    if (!status.ok()) return WithContext(status, "serial");
  }
  return WithContext(CheckInquiryText(options.product, kMaxProductBytes), "product");
}

LogicalUnit::LogicalUnit(UnitHost& host, std::unique_ptr<disk::Disk> disk,
                         LogicalUnitOptions options)
    : host_(host), disk_(std::move(disk)), options_(std::move(options)) {
  if (options_.serial.empty()) options_.serial = DefaultSerial(*disk_);
  Describe();
}

LogicalUnit::~LogicalUnit() { CHECK(empty() && abort_waits_.empty() && idle_waits_.empty()); }

void LogicalUnit::Describe() {
  UnitDescription description = {.serial = options_.serial,
                                 .product = options_.product,
                                 .read_only = options_.read_only,
                                 .format = {},
                                 .path = {},
                                 .parents = {},
                                 .geometry = {},
                                 .facts = {}};
  if (disk_ != nullptr) {
    description.read_only = read_only();
    description.format = std::string(disk_->format());
    description.path = disk_->path();
    description.geometry = disk_->geometry();
    description.facts = disk_->Facts();
    for (const disk::Disk* parent = disk_->parent(); parent != nullptr; parent = parent->parent()) {
      description.parents.push_back(parent->path());
    }
  }
  statistics_->Describe(std::move(description));
}

void LogicalUnit::Execute(Command& command) {
  const std::span<const CommandEntry> entries = CommandEntry::Find(command.cdb()[0]);
  for (const CommandEntry& entry : entries) {
    if (entry.has_service_action() && entry.service_action != (command.cdb()[1] & 0x1F)) continue;
    command.entry_ = &entry;
  }
  command.unit_ = this;
  command.sequence_ = next_sequence_++;
  if (command.input_.attribute == TaskAttribute::kHeadOfQueue) {
    if (MayRunAsHead(command)) return Run(command);
    head_waiting_.PushBack(command);
  } else if (waiting_.empty() && IsItsTurn(command)) {
    TakeTurn(command);
  } else {
    waiting_.PushBack(command);
  }
}

// What is under way doesn't matter, unless it is of a kind that doesn't go together (SAM-5, 8.7.3).
bool LogicalUnit::MayRunAsHead(const Command& command) const {
  if (!MayRun()) return false;
  const CommandEntry* entry = command.entry_;
  if (entry == nullptr) return true;
  return (!entry->has(kAlone) || running_.empty()) && (!entry->has(kBulk) || !bulk_running_);
}

bool LogicalUnit::IsItsTurn(const Command& command) const {
  if (!MayRunInTurn()) return false;
  const CommandEntry* entry = command.entry_;
  const bool alone = command.input_.attribute == TaskAttribute::kOrdered ||
                     (entry != nullptr && entry->has(kAlone));
  return !alone || (running_.empty() && bulk_waiting_.empty());
}

void LogicalUnit::TakeTurn(Command& command) {
  const bool bulk = command.entry_ != nullptr && command.entry_->has(kBulk);
  if (bulk && bulk_running_) return bulk_waiting_.PushBack(command);
  Run(command);
}

void LogicalUnit::StartWaiting() {
  // Commands that end at once come back here: the loop further up the stack goes on, so that the
  // stack doesn't grow with their number.
  if (starting_) return;
  starting_ = true;
  while (true) {
    if (!head_waiting_.empty() && MayRunAsHead(*head_waiting_.first())) {
      Run(head_waiting_.PopFront());
    } else if (!bulk_waiting_.empty() && !bulk_running_ && MayRunInTurn()) {
      Run(bulk_waiting_.PopFront());
    } else if (!waiting_.empty() && IsItsTurn(*waiting_.first())) {
      TakeTurn(waiting_.PopFront());
    } else {
      break;
    }
  }
  starting_ = false;
}

void LogicalUnit::Run(Command& command) {
  running_.PushBack(command);
  host_.Enter();
  statistics_->commands.Add(1);
  statistics_->in_flight.Add(1);
  const CommandEntry* entry = command.entry_;
  if (entry != nullptr) {
    if (entry->has(kAlone)) alone_running_ = true;
    if (entry->has(kBulk)) bulk_running_ = true;
  }
  if (command.input_.attribute == TaskAttribute::kOrdered) ordered_running_ = true;
  if (command.input_.attribute == TaskAttribute::kHeadOfQueue) ++heads_running_;
  Dispatch(command);
}

void LogicalUnit::Dispatch(Command& command) {
  const CommandEntry* entry = command.entry_;
  // SAM-5, 5.14.
  if (!attentions_.empty() && (entry == nullptr || !entry->has(kDespiteAttention))) {
    const Condition attention = attentions_.front();
    attentions_.erase(attentions_.begin());
    return Check(command, attention);
  }
  if (entry == nullptr) {
    if (CommandEntry::Find(command.cdb()[0]).empty()) return Check(command, kInvalidOpcode);
    return InvalidField(command, 1, 4);  // the service action
  }
  if (entry->has(kUnmaps) && !can_unmap()) return Check(command, kInvalidOpcode);
  // NACA: auto contingent allegiance isn't supported (SAM-5, 5.2).
  const auto control = static_cast<uint16_t>(entry->length - 1);
  if ((command.cdb()[control] & 0x04) != 0) return InvalidField(command, control, 2);
  if (entry->has(kNeedsMedium)) {
    if (stopped_) return Check(command, kStopped);
    // Somebody truncated the file to nothing and had us look again.
    if (blocks() == 0) return Check(command, kMediumNotPresent);
  }
  if (entry->has(kWrites) && read_only()) return Check(command, kWriteProtected);
  (this->*entry->handler)(command);
}

// It goes as if it had never come.
void LogicalUnit::EndUnstarted(Command& command) {
  command.outcome = command.abort_as_;
  command.residual = command.input_.data_in_bytes + command.input_.data_out_bytes;
  command.unit_ = nullptr;
  statistics_->aborted.Add(1);
  command.Complete();
}

void LogicalUnit::End(Command& command) {
  const bool aborted = command.aborted();
  if (aborted) {
    command.outcome = command.abort_as_;
    statistics_->aborted.Add(1);
  }
  if (command.outcome != Outcome::kOk || command.status != Status::kGood) {
    command.data_in_written = 0;
    command.data_out_taken_ = 0;
  }
  if (command.outcome != Outcome::kOk) {
    command.status = Status::kGood;
    command.sense_.clear();
  }
  command.residual = command.input_.data_in_bytes - command.data_in_written +
                     command.input_.data_out_bytes - command.data_out_taken_;
  running_.Remove(command);
  command.unit_ = nullptr;
  const CommandEntry* entry = command.entry_;
  if (entry != nullptr && entry->has(kAlone)) alone_running_ = false;
  if (entry != nullptr && entry->has(kBulk)) bulk_running_ = false;
  if (command.input_.attribute == TaskAttribute::kOrdered) ordered_running_ = false;
  if (command.input_.attribute == TaskAttribute::kHeadOfQueue) --heads_running_;
  statistics_->in_flight.Subtract(1);
  command.Complete();

  host_.Leave();
  if (aborted) {
    for (auto wait = abort_waits_.begin(); wait != abort_waits_.end();) {
      bool left = false;
      for (Command* other = running_.first(); other != nullptr; other = CommandList::Next(*other)) {
        left |= other->aborted() && other->sequence_ < wait->before;
      }
      if (left) {
        ++wait;
        continue;
      }
      host_.Post(std::move(wait->done));
      wait = abort_waits_.erase(wait);
    }
  }
  StartWaiting();
  PostIdleWaits();
}

void LogicalUnit::PostIdleWaits() {
  if (!idle()) return;
  for (std::function<void()>& idle : std::exchange(idle_waits_, {})) {
    ++idle_posted_;
    host_.Post([this, idle = std::move(idle)] {
      --idle_posted_;
      idle();  // may be the end of this
    });
  }
}

void LogicalUnit::Settle(std::function<void()> done) {
  CHECK(disk_ != nullptr && idle());
  settling_ = true;
  Start(disk_->Settle(), [this, done = std::move(done)] {
    settling_ = false;
    PostIdleWaits();
    done();
  });
}

void LogicalUnit::Check(Command& command, const SenseData& sense) {
  command.status = Status::kCheckCondition;
  command.sense_.Encode(
      sense, descriptor_sense_ ? EncodedSense::Format::kDescriptor : EncodedSense::Format::kFixed);
  if (sense.condition.key == SenseKey::kIllegalRequest) statistics_->refused.Add(1);
  End(command);
}

void LogicalUnit::InvalidField(Command& command, uint16_t byte, std::optional<uint8_t> bit) {
  Check(command, {.condition = kInvalidFieldInCdb,
                  .field = FieldPointer{FieldPointer::Place::kCdb, byte, bit}});
}

void LogicalUnit::InvalidParameter(Command& command, uint16_t byte, std::optional<uint8_t> bit) {
  Check(command, {.condition = kInvalidFieldInParameters,
                  .field = FieldPointer{FieldPointer::Place::kParameters, byte, bit}});
}

void LogicalUnit::Overrun(Command& command) {
  command.outcome = Outcome::kOverrun;
  End(command);
}

void LogicalUnit::Return(Command& command, std::span<const uint8_t> data,
                         uint64_t allocation_length) {
  const std::span<const uint8_t> sent =
      data.first(std::min<uint64_t>(data.size(), allocation_length));
  if (sent.size() > command.input_.data_in_bytes) return Overrun(command);
  disk::CopyInto(command.input_.data_in, 0, sent);
  command.data_in_written = sent.size();
  Good(command);
}

bool LogicalUnit::TakeDataOut(Command& command, uint64_t skip, std::span<uint8_t> into) {
  const uint64_t room = command.input_.data_out_bytes;
  if (skip > room || into.size() > room - skip) {
    Overrun(command);
    return false;
  }
  command.data_out_taken_ = std::max<uint64_t>(command.data_out_taken_, skip + into.size());
  disk::ForEachPiece(command.input_.data_out, skip, into.size(), [&](uint8_t* data, size_t size) {
    std::memcpy(into.data(), data, size);
    into = into.subspan(size);
  });
  return true;
}

bool LogicalUnit::VouchesForAll(const Command& command) {
  return command.entry_->handler == &LogicalUnit::SynchronizeCache;
}

void LogicalUnit::DiskFailed(Command& command, disk::Operation operation, uint64_t offset,
                             const absl::Status& status) {
  if (operation == disk::Operation::kFlush) {
    untold_flush_ = VouchesForAll(command) ? absl::OkStatus() : status;
  }
  std::string text = absl::StrCat(std::string(OperationName(operation)), " at ", offset, ": ",
                                  std::string(absl::StatusCodeToString(status.code())), ": ",
                                  std::string(status.message()));
  log_.Log(LogLevel::kWarning, "scsi", absl::StrCat(disk_->path(), ": ", text));
  statistics_->RecordError(std::move(text));
  SenseData sense = {.condition = ConditionOf(operation, status)};
  const bool of_block = operation != disk::Operation::kFlush;
  if (of_block && sense.condition.key == SenseKey::kMediumError) {
    sense.information = offset / block_bytes();
  }
  Check(command, sense);
}

void LogicalUnit::Count(disk::Operation operation, uint64_t bytes, bool may_deallocate) {
  switch (operation) {
    case disk::Operation::kRead:
      statistics_->reads.Add(1);
      return statistics_->read_bytes.Add(bytes);
    case disk::Operation::kWrite:
      statistics_->writes.Add(1);
      return statistics_->written_bytes.Add(bytes);
    case disk::Operation::kFlush:
      return statistics_->flushes.Add(1);
    case disk::Operation::kWriteZeroes:
      if (!may_deallocate) {
        statistics_->writes.Add(1);
        return statistics_->written_bytes.Add(bytes);
      }
      [[fallthrough]];
    case disk::Operation::kDiscard:
      statistics_->unmaps.Add(1);
      return statistics_->unmapped_bytes.Add(bytes);
  }
}

}  // namespace bothy::scsi
