// LogicalUnit: task management, unit attentions, and the medium coming and going.
#include <algorithm>
#include <utility>

#include "scsi/logical_unit.h"
#include "scsi/unit_identity.h"
#include "support/check.h"

namespace bothy::scsi {

Command* LogicalUnit::TakeWaiting() {
  for (CommandList* list : {&head_waiting_, &bulk_waiting_, &waiting_}) {
    if (!list->empty()) return &list->PopFront();
  }
  return nullptr;
}

void LogicalUnit::Abort(Outcome outcome, const uint64_t* tag) {
  const auto concerned = [tag](const Command& command) {
    return tag == nullptr || command.input_.tag == *tag;
  };
  for (Command* command = running_.first(); command != nullptr;
       command = CommandList::Next(*command)) {
    // The first to abort it says as what.
    if (concerned(*command) && !command->aborted()) command->abort_as_ = outcome;
  }
  // Ending one may bring in the next from the front end, which isn't meant.
  CommandList ended;
  for (CommandList* list : {&head_waiting_, &bulk_waiting_, &waiting_}) {
    for (Command* command = list->first(); command != nullptr;) {
      Command& candidate = *command;
      command = CommandList::Next(candidate);
      if (!concerned(candidate)) continue;
      list->Remove(candidate);
      candidate.abort_as_ = outcome;
      ended.PushBack(candidate);
    }
  }
  while (!ended.empty()) EndUnstarted(ended.PopFront());
  StartWaiting();
}

bool LogicalUnit::WhenAborted(std::function<void()> done) {
  for (const Command* command = running_.first(); command != nullptr;
       command = CommandList::Next(*command)) {
    if (!command->aborted()) continue;
    abort_waits_.push_back({.before = next_sequence_, .done = std::move(done)});
    return true;
  }
  return false;
}

bool LogicalUnit::Knows(uint64_t tag) const {
  for (const CommandList& list : {running_, head_waiting_, bulk_waiting_, waiting_}) {
    for (const Command* command = list.first(); command != nullptr;
         command = CommandList::Next(*command)) {
      if (command->input_.tag == tag) return true;
    }
  }
  return false;
}

void LogicalUnit::WhenIdle(std::function<void()> idle) {
  if (this->idle()) return idle();
  idle_waits_.push_back(std::move(idle));
}

void LogicalUnit::Raise(const Condition& attention) {
  const auto pending = [this](const Condition& condition) {
    return std::find(attentions_.begin(), attentions_.end(), condition) != attentions_.end();
  };
  if (!pending(kPowerOn) && !pending(attention)) attentions_.push_back(attention);
}

void LogicalUnit::ClearAttention(const Condition& attention) { std::erase(attentions_, attention); }

void LogicalUnit::ResetState(const Condition& attention) {
  stopped_ = false;
  write_cache_ = true;
  descriptor_sense_ = false;
  if (attention == kPowerOn) attentions_.clear();
  Raise(attention);
}

std::unique_ptr<disk::Disk> LogicalUnit::TakeDisk() {
  CHECK(running_.empty());
  std::unique_ptr<disk::Disk> disk = std::move(disk_);
  Describe();
  return disk;
}

void LogicalUnit::PutDisk(std::unique_ptr<disk::Disk> disk, LogicalUnitOptions options) {
  CHECK(held_ && disk_ == nullptr);
  disk_ = std::move(disk);
  untold_flush_ = absl::OkStatus();  // the host was told when what was there was closed
  options_ = std::move(options);
  if (options_.serial.empty()) options_.serial = DefaultSerial(*disk_);
  Describe();
  held_ = false;
}

}  // namespace bothy::scsi
