// UnitStatistics: what inspection shows of a logical unit, kept where other threads can read it.
//
// The loop's thread writes, any thread reads, nobody waits: counters are relaxed atomics with one
// writer; what the unit is and its last error stand under a mutex that is held for copies alone.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "disk/disk.h"

namespace bothy::scsi {

struct UnitCounters {
  uint64_t commands = 0;  // that started, of any kind
  uint64_t reads = 0;     // operations of the disk, from here on
  uint64_t writes = 0;
  uint64_t flushes = 0;
  uint64_t unmaps = 0;  // discards, and zeros that may give space back
  uint64_t read_bytes = 0;
  uint64_t written_bytes = 0;
  uint64_t unmapped_bytes = 0;
  uint64_t aborted = 0;    // commands that task management or a reset ended
  uint64_t refused = 0;    // commands that were answered with ILLEGAL REQUEST
  uint64_t errors = 0;     // operations of the disk that failed
  uint64_t in_flight = 0;  // commands now under way
};

// The disk as it was when it was attached, exchanged or looked at again.
struct UnitDescription {
  std::string serial;
  std::string product;
  bool read_only = false;
  std::string format;  // empty: the medium is out
  std::string path;
  std::vector<std::string> parents;  // paths, the nearest first
  disk::Geometry geometry;
  std::vector<disk::Fact> facts;
};

struct UnitError {
  std::string text;
  std::chrono::system_clock::time_point when;
};

struct UnitSnapshot {
  uint16_t lun = 0;
  UnitDescription description;
  UnitCounters counters;
  std::optional<UnitError> last_error;
};

class UnitStatistics {
 public:
  class Counter {
   public:
    void Add(uint64_t count) {
      value_.store(value_.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
    }
    void Subtract(uint64_t count) { Add(uint64_t{0} - count); }
    [[nodiscard]] uint64_t value() const { return value_.load(std::memory_order_relaxed); }

   private:
    std::atomic<uint64_t> value_{0};
  };

  // Loop thread.
  Counter commands;
  Counter reads;
  Counter writes;
  Counter flushes;
  Counter unmaps;
  Counter read_bytes;
  Counter written_bytes;
  Counter unmapped_bytes;
  Counter aborted;
  Counter refused;
  Counter errors;
  Counter in_flight;
  void Describe(UnitDescription description);
  void RecordError(std::string text);

  // Any thread.
  [[nodiscard]] UnitSnapshot Snapshot() const;

 private:
  mutable std::mutex mutex_;
  UnitDescription description_;          // guarded by mutex_
  std::optional<UnitError> last_error_;  // guarded by mutex_
};

}  // namespace bothy::scsi
