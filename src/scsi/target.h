// Target: a SCSI target device with up to kMaxLuns logical units.
//
// Everything on the thread of its loop, but for ForEachUnit's callers, who hold no unit beyond it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "disk/disk.h"
#include "scsi/command.h"
#include "scsi/logical_unit.h"

namespace bothy::scsi {

// In SAM's order (SAM-5, clause 7).
enum class TaskFunction : uint8_t {
  kAbortTask,
  kAbortTaskSet,
  kClearAca,
  kClearTaskSet,
  kNexusReset,
  kLogicalUnitReset,
  kQueryTask,
  kQueryTaskSet,
};
enum class TaskResponse : uint8_t { kComplete, kSucceeded, kRejected, kIncorrectLun };

class Target {
 public:
  Target() = default;
  ~Target();
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  // `command` is answered by its Complete, maybe before this returns.
  void Execute(Command& command);
  // `done` is called when what was aborted is out of flight, maybe before this returns.
  void Manage(TaskFunction function, uint16_t lun, uint64_t tag,
              std::function<void(TaskResponse)> done);

  [[nodiscard]] bool Has(uint16_t lun) const { return units_[lun] != nullptr; }
  // `serial` is what the guest knows the disk by. The place is free.
  void Attach(uint16_t lun, std::unique_ptr<disk::Disk> disk, std::string serial);
  // No command reaches the unit any more; `done` gets its disk when none is under way.
  void Detach(uint16_t lun, std::function<void(std::unique_ptr<disk::Disk>)> done);
  // Takes the medium out of a unit that stays: `done` gets its disk when no command is under way.
  // Until PutMedium, commands are answered BUSY, which makes drivers try again.
  void TakeMedium(uint16_t lun, std::function<void(std::unique_ptr<disk::Disk>)> done);
  // Gives it another one, or the same; the driver hears of it by a unit attention.
  void PutMedium(uint16_t lun, std::unique_ptr<disk::Disk> disk, std::string serial);
  // The disk there, for Refresh and Flush; null when there is none.
  [[nodiscard]] disk::Disk* disk(uint16_t lun);
  // What the guest knows the disk there by; empty when there is none.
  [[nodiscard]] std::string_view serial(uint16_t lun) const;
  void Raise(uint16_t lun, const Condition& attention);

  // `done` is called when no command is under way; the caller gives none until Resume.
  void Quiesce(std::function<void()> done);
  // The driver has gone: what it set is forgotten.
  void Reset();

  // Any thread; units don't come or go meanwhile.
  void ForEachUnit(absl::FunctionRef<void(uint16_t lun, const LogicalUnit&)> visit) const;

 private:
  // REPORT LUNS and INQUIRY answer for a place without a unit, too.
  void ExecuteWithoutUnit(Command& command);
  [[nodiscard]] bool ReportLuns(Command& command);

  mutable std::mutex units_mutex_;  // guards changes of units_ and reads from other threads
  std::array<std::unique_ptr<LogicalUnit>, kMaxLuns> units_;
  std::array<bool, kMaxLuns> busy_{};  // between TakeMedium and PutMedium
};

}  // namespace bothy::scsi
