// Target: task management (SAM-5, clause 7) and reset.
#include <utility>

#include "scsi/target.h"

namespace bothy::scsi {

void Target::Manage(TaskFunction function, uint16_t lun, uint64_t tag,
                    std::function<void(TaskResponse)> done) {
  LogicalUnit* const unit = Unit(lun);
  if (unit == nullptr && function != TaskFunction::kNexusReset) {
    return done(TaskResponse::kIncorrectLun);
  }
  const auto abort = [&](Outcome outcome, const uint64_t* which) {
    AbortParked(outcome, &lun, which);
    unit->Abort(outcome, which);
    const auto complete = [done] { done(TaskResponse::kComplete); };
    if (!unit->WhenAborted(complete)) complete();
  };
  const auto answer = [&done](bool found) {
    done(found ? TaskResponse::kSucceeded : TaskResponse::kComplete);
  };
  switch (function) {
    case TaskFunction::kAbortTask:
      return abort(Outcome::kAborted, &tag);
    case TaskFunction::kAbortTaskSet:
    case TaskFunction::kClearTaskSet:  // the same, with one nexus
      return abort(Outcome::kAborted, nullptr);
    case TaskFunction::kLogicalUnitReset:
      unit->ResetState(kUnitReset);
      return abort(Outcome::kReset, nullptr);
    case TaskFunction::kNexusReset:
      return ResetNexus(std::move(done));
    case TaskFunction::kQueryTask:
      return answer(unit->Knows(tag) || IsParked(lun, &tag));
    case TaskFunction::kQueryTaskSet:
      return answer(!unit->empty() || IsParked(lun, nullptr));
    case TaskFunction::kClearAca:
      break;
  }
  done(TaskResponse::kRejected);
}

void Target::AbortEverything(const std::function<void(LogicalUnit&)>& reset) {
  for (const std::unique_ptr<LogicalUnit>& unit : units_) {
    if (unit != nullptr) reset(*unit);
  }
  AbortParked(Outcome::kReset, nullptr, nullptr);
  for (const std::unique_ptr<LogicalUnit>& unit : units_) {
    if (unit != nullptr) unit->Abort(Outcome::kReset, nullptr);
  }
  for (const std::unique_ptr<LogicalUnit>& unit : leaving_) unit->Abort(Outcome::kReset, nullptr);
}

void Target::ResetNexus(std::function<void(TaskResponse)> done) {
  AbortEverything([](LogicalUnit& unit) { unit.Raise(kNexusLoss); });
  // One more than there are units to wait for, so that it isn't over before all have been asked.
  auto left = std::make_shared<size_t>(1);
  const auto one_less = [left, done = std::move(done)] {
    if (--*left == 0) done(TaskResponse::kComplete);
  };
  const auto wait = [&](LogicalUnit& unit) {
    if (unit.WhenAborted(one_less)) ++*left;
  };
  for (const std::unique_ptr<LogicalUnit>& unit : units_) {
    if (unit != nullptr) wait(*unit);
  }
  for (const std::unique_ptr<LogicalUnit>& unit : leaving_) wait(*unit);
  one_less();
}

void Target::Reset() {
  AbortEverything([](LogicalUnit& unit) { unit.ResetState(kPowerOn); });
}

void Target::AbortParked(Outcome outcome, const uint16_t* lun, const uint64_t* tag) {
  CommandList kept;
  CommandList ended;
  for (CommandList all = std::exchange(parked_, {}); !all.empty();) {
    Command& command = all.PopFront();
    const bool concerned = (lun == nullptr || command.input_.lun == *lun) &&
                           (tag == nullptr || command.input_.tag == *tag);
    (concerned ? ended : kept).PushBack(command);
  }
  parked_ = kept;
  while (!ended.empty()) {
    Command& command = ended.PopFront();
    command.outcome = outcome;
    command.residual = command.input_.data_in_bytes + command.input_.data_out_bytes;
    command.Complete();
  }
}

bool Target::IsParked(uint16_t lun, const uint64_t* tag) const {
  for (const Command* command = parked_.first(); command != nullptr;
       command = CommandList::Next(*command)) {
    if (command->input_.lun == lun && (tag == nullptr || command->input_.tag == *tag)) return true;
  }
  return false;
}

}  // namespace bothy::scsi
