#include "scsi/unit_statistics.h"

#include <utility>

namespace bothy::scsi {

void UnitStatistics::Describe(UnitDescription description) {
  const std::lock_guard lock(mutex_);
  description_ = std::move(description);
}

void UnitStatistics::RecordError(std::string text) {
  errors.Add(1);
  UnitError error = {.text = std::move(text), .when = std::chrono::system_clock::now()};
  const std::lock_guard lock(mutex_);
  last_error_ = std::move(error);
}

UnitSnapshot UnitStatistics::Snapshot() const {
  UnitSnapshot snapshot;
  snapshot.counters = {.commands = commands.value(),
                       .reads = reads.value(),
                       .writes = writes.value(),
                       .flushes = flushes.value(),
                       .unmaps = unmaps.value(),
                       .read_bytes = read_bytes.value(),
                       .written_bytes = written_bytes.value(),
                       .unmapped_bytes = unmapped_bytes.value(),
                       .aborted = aborted.value(),
                       .refused = refused.value(),
                       .errors = errors.value(),
                       .in_flight = in_flight.value()};
  const std::lock_guard lock(mutex_);
  snapshot.description = description_;
  snapshot.last_error = last_error_;
  return snapshot;
}

}  // namespace bothy::scsi
