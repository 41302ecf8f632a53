// Commands about the unit as a whole (SPC-5, chapter 6; START STOP UNIT: SBC-4, 5.30).
#include "scsi/logical_unit.h"
#include "support/endian.h"

namespace bothy::scsi {

void LogicalUnit::TestUnitReady(Command& command) {
  if (stopped_) return Check(command, kStopped);
  if (blocks() == 0) return Check(command, kMediumNotPresent);
  Good(command);
}

void LogicalUnit::StartStopUnit(Command& command) {
  const uint8_t flags = command.cdb()[4];
  // Power conditions: none but "active" and "standby" of START itself. The medium isn't the
  // guest's to eject.
  if ((flags & 0xF0) != 0) return InvalidField(command, 4, 7);
  if ((flags & 0x02) != 0) return InvalidField(command, 4, 1);
  const bool start = (flags & 0x01) != 0;
  const bool no_flush = (flags & 0x04) != 0;
  const bool stops = !stopped_ && !start;
  stopped_ = !start;
  if (stops && !no_flush && blocks() != 0) return StartFlush(command);
  Good(command);
}

void LogicalUnit::RequestSense(Command& command) {
  const bool descriptors = (command.cdb()[1] & 0x01) != 0;
  SenseData sense = {.condition = kNoCondition};
  if (!attentions_.empty()) {
    sense.condition = attentions_.front();
    attentions_.erase(attentions_.begin());
  } else if (stopped_) {
    sense.condition = kStopped;
  }
  EncodedSense encoded;
  encoded.Encode(sense,
                 descriptors ? EncodedSense::Format::kDescriptor : EncodedSense::Format::kFixed);
  Return(command, encoded.bytes(), command.cdb()[4]);
}

void LogicalUnit::PreventMediumRemoval(Command& command) {
  // The unit isn't removable: there is nothing to prevent or to allow.
  Good(command);
}

void LogicalUnit::SendDiagnostic(Command& command) {
  const uint8_t* cdb = command.cdb();
  // The default self-test finds nothing wrong; there are no others, nor diagnostic pages.
  if ((cdb[1] & 0xE0) != 0) return InvalidField(command, 1, 7);  // SELF-TEST CODE
  if ((cdb[1] & 0x10) != 0) return InvalidField(command, 1, 4);  // PF
  if (LoadBe<uint16_t>(cdb + 3) != 0) return InvalidField(command, 3);
  Good(command);
}

}  // namespace bothy::scsi
