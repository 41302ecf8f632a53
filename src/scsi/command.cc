#include "scsi/command.h"

#include <algorithm>
#include <utility>

#include "scsi/logical_unit.h"

namespace bothy::scsi {

void Command::Begin(const Input& input) {
  input_ = input;
  const auto cdb = input.cdb.first(std::min(input.cdb.size(), kMaxCdbBytes));
  std::fill(std::copy(cdb.begin(), cdb.end(), cdb_.begin()), cdb_.end(), uint8_t{0});
  input_.cdb = {};
  outcome = Outcome::kOk;
  status = Status::kGood;
  residual = 0;
  data_in_written = 0;
  sense_.clear();
  entry_ = nullptr;
  unit_ = nullptr;
  abort_as_ = Outcome::kOk;
  unit_gone_ = false;
  flush_after_ = false;
  data_out_taken_ = 0;
}

void Command::Transfer::Complete(absl::Status status) {
  command_.unit_->OnTransfer(command_, status);
}

void CommandList::PushBack(Command& command) {
  command.next_ = nullptr;
  command.previous_ = last_;
  (last_ != nullptr ? last_->next_ : first_) = &command;
  last_ = &command;
}

void CommandList::Remove(Command& command) {
  (command.previous_ != nullptr ? command.previous_->next_ : first_) = command.next_;
  (command.next_ != nullptr ? command.next_->previous_ : last_) = command.previous_;
  command.next_ = nullptr;
  command.previous_ = nullptr;
}

Command& CommandList::PopFront() {
  Command& command = *first_;
  Remove(command);
  return command;
}

}  // namespace bothy::scsi
