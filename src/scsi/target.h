// Target: a SCSI target device with up to kMaxLuns logical units, each over a disk (SAM-5, 4.5).
//
//   Target target([&loop](std::function<void()> call) { loop.Post(std::move(call)); });
//   absl::Status attached = target.Attach(3, std::move(disk), {.serial = "root"});
//   target.Execute(command);  // ends in command.Complete()
//   target.Detach(3, [](std::unique_ptr<disk::Disk> disk) { ... disk->Close() ... });
//
// One nexus: the front end has one initiator. Everything on the thread of the front end's loop,
// but Snapshot. Nothing but Execute is called from within a command's Complete.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "disk/disk.h"
#include "scsi/command.h"
#include "scsi/logical_unit.h"
#include "scsi/unit_host.h"
#include "scsi/unit_statistics.h"
#include "support/status.h"

namespace bothy::scsi {

// In the order of SAM-5, clause 7.
enum class TaskFunction : uint8_t {
  kAbortTask,
  kAbortTaskSet,
  kClearAca,
  kClearTaskSet,
  kNexusReset,  // all units
  kLogicalUnitReset,
  kQueryTask,
  kQueryTaskSet,
};
enum class TaskResponse : uint8_t {
  kComplete,
  kSucceeded,     // a query: there is such a task
  kRejected,      // CLEAR ACA: nothing here ever establishes an ACA condition
  kIncorrectLun,  // no unit is there
};

class Target final : private UnitHost {
 public:
  // IoLoop::Post of the loop whose thread this runs on.
  using Poster = std::function<void(std::function<void()>)>;

  explicit Target(Poster post) : post_(std::move(post)) {}
  // Every unit is detached, nothing is under way, and what was posted has run.
  ~Target();

  // `command` is answered by its Complete, maybe before this returns. While paused it waits.
  void Execute(Command& command);
  // Commands that haven't started end within this; `done` is called when those that have are out
  // of flight and ended, too, maybe before this returns. They end as kAborted, or as kReset.
  void Manage(TaskFunction function, uint16_t lun, uint64_t tag,
              std::function<void(TaskResponse)> done);
  // The driver has gone: all commands end as kReset, those under way when their I/O has, and the
  // units are as after power-on.
  void Reset();

  // InvalidArgument for a LUN that can't be and what CheckUnit finds, AlreadyExists when the place
  // is taken; a disk that is refused is destroyed. The guest learns from the other units that there
  // is a new one (REPORTED LUNS DATA HAS CHANGED); to say it at once is the front end's.
  //
  // Without a serial number in `options` it is DefaultSerial of the disk, or one made of its path
  // where another unit has that already: disks of one chain share it.
  absl::Status Attach(uint16_t lun, std::unique_ptr<disk::Disk> disk,
                      const LogicalUnitOptions& options);
  // From now on nobody is at `lun`, and it may be attached anew. `done` is called with the disk, to
  // be closed, when nothing of it is in flight, maybe before this returns; with null when the
  // medium is out. A unit is there, and no TakeMedium of it waits.
  using DiskDone = std::function<void(std::unique_ptr<disk::Disk>)>;
  void Detach(uint16_t lun, DiskDone done);

  // Exchanging the medium, in two steps, since an image can't be opened twice. Commands of the unit
  // wait from TakeMedium on; `done` is called with the disk when nothing of it is in flight, maybe
  // before this returns. PutMedium lets them go on. With MediumChange::kChanged the guest is told
  // (MEDIUM MAY HAVE CHANGED, and what else has); kUnchanged puts back what was there. CheckUnit
  // has approved of disk and options. A unit is there, with its medium in, or out.
  void TakeMedium(uint16_t lun, DiskDone done);
  enum class MediumChange : uint8_t { kChanged, kUnchanged };
  void PutMedium(uint16_t lun, std::unique_ptr<disk::Disk> disk, const LogicalUnitOptions& options,
                 MediumChange change = MediumChange::kChanged);

  // Looks again how big the image is; the guest is told when that or anything else of the geometry
  // has changed (CAPACITY DATA HAS CHANGED), and so is the caller: true. NotFound,
  // FailedPrecondition when the medium is out, or what the disk says.
  absl::StatusOr<bool> RefreshCapacity(uint16_t lun);

  [[nodiscard]] bool Has(uint16_t lun) const { return lun < kMaxLuns && units_[lun] != nullptr; }
  // The disk there, for Facts and flushing; null without a unit or a medium.
  [[nodiscard]] disk::Disk* disk(uint16_t lun) const;

  // No command starts any more, and `done` is called when none is under way and the disks have
  // settled, maybe before this returns: nothing changes in guest memory or an image until Resume.
  // Not called again before that.
  void Quiesce(std::function<void()> done);
  // For who works on a disk that no unit has, or beside its commands (closes it, flushes it): a
  // Quiesce waits for that, too. Also while paused.
  void Hold() {
    Enter();
    held_since_ = true;
  }
  void Release();
  // What waited goes on. Does nothing unless paused, and not before `done` was called.
  void Resume();

  // All units, by LUN. Any thread, at any time; never waits for I/O.
  [[nodiscard]] std::vector<UnitSnapshot> Snapshot() const;

 private:
  // UnitHost.
  [[nodiscard]] std::vector<uint16_t> Inventory() const override;
  void OnInventoryReported() override;
  void Post(std::function<void()> call) override { post_(std::move(call)); }
  void OnQuiet() override;
  void SettleUnits();
  void OnSettled();

  [[nodiscard]] LogicalUnit* Unit(uint16_t lun) const {
    return lun < kMaxLuns ? units_[lun].get() : nullptr;
  }
  void Publish(uint16_t lun, std::shared_ptr<const UnitStatistics> statistics);
  // Tells the guest through the units other than `lun` that units have come or gone.
  void RaiseInventoryChange(uint16_t lun);
  // `options` with a serial number.
  [[nodiscard]] LogicalUnitOptions Named(uint16_t lun, const disk::Disk& disk,
                                         const LogicalUnitOptions& options) const;
  [[nodiscard]] bool IsSerialTaken(uint16_t lun, const std::string& serial) const;
  void ExecuteWithoutUnit(Command& command);
  void ResetNexus(std::function<void(TaskResponse)> done);
  // Ends all commands as kReset; `reset` is called with each unit before.
  void AbortEverything(const std::function<void(LogicalUnit&)>& reset);
  // Of all units or one, all commands or those with that tag.
  void AbortParked(Outcome outcome, const uint16_t* lun, const uint64_t* tag);
  [[nodiscard]] bool IsParked(uint16_t lun, const uint64_t* tag) const;

  const Poster post_;
  std::array<std::unique_ptr<LogicalUnit>, kMaxLuns> units_;
  std::vector<std::unique_ptr<LogicalUnit>> leaving_;  // that Detach waits for
  // Commands that came while paused, and those that waited in a unit that was detached then.
  CommandList parked_;
  std::function<void()> on_quiet_;  // of Quiesce, until it is called
  bool held_since_ = false;         // since they began to settle
  size_t settling_ = 0;             // units whose disks haven't settled since

  mutable std::mutex snapshot_mutex_;
  // guarded by snapshot_mutex_
  std::array<std::shared_ptr<const UnitStatistics>, kMaxLuns> statistics_;
};

}  // namespace bothy::scsi
