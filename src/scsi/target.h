// Target: a SCSI target device with up to kMaxLuns logical units, each over a disk (SAM-5, 4.5).
//
//   Target target([&loop](std::function<void()> call) { loop.Post(std::move(call)); });
//   absl::Status attached = target.Attach(3, std::move(disk), {.serial = "root"});
//   target.Execute(command);                       // ends in command.Complete()
//   auto disk = co_await target.Detach(3);         // nothing of it is in flight
//   absl::Status closed = co_await (*disk)->Close();
//
// One nexus: the front end has one initiator. Everything on the thread of the front end's loop,
// but Snapshot.
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
#include "support/task.h"

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

  // InvalidArgument for a LUN, options or a disk that can't be, AlreadyExists when the place is
  // taken; a disk that is refused is destroyed. The guest learns from the other units that there
  // is a new one (REPORTED LUNS DATA HAS CHANGED); telling it is the front end's.
  absl::Status Attach(uint16_t lun, std::unique_ptr<disk::Disk> disk,
                      const LogicalUnitOptions& options);
  // From now on nobody is at `lun`; it may be attached anew at once. Ends with the disk, to be
  // closed, when nothing of it is in flight: null when its medium is out. NotFound;
  // FailedPrecondition while RemoveMedium waits.
  Task<absl::StatusOr<std::unique_ptr<disk::Disk>>> Detach(uint16_t lun);

  // Exchanging the medium, in two steps, since an image can't be opened twice: RemoveMedium gives
  // the disk when nothing of it is in flight, and commands of the unit wait until InsertMedium.
  // `options.read_only`, serial and product are those of the new one. With MediumChange::kChanged
  // the guest is told (MEDIUM MAY HAVE CHANGED, and what else has); kUnchanged puts back what was
  // there. NotFound; FailedPrecondition when the medium is out, or not; InvalidArgument as Attach,
  // and the medium stays out.
  Task<absl::StatusOr<std::unique_ptr<disk::Disk>>> RemoveMedium(uint16_t lun);
  enum class MediumChange : uint8_t { kChanged, kUnchanged };
  absl::Status InsertMedium(uint16_t lun, std::unique_ptr<disk::Disk> disk,
                            const LogicalUnitOptions& options, MediumChange change);
  // Both steps for a disk that is open already; ends with the old one.
  Task<absl::StatusOr<std::unique_ptr<disk::Disk>>> ReplaceMedium(uint16_t lun,
                                                                  std::unique_ptr<disk::Disk> disk,
                                                                  LogicalUnitOptions options);

  // Looks again how big the image is; the guest is told when that or anything else of the geometry
  // has changed (CAPACITY DATA HAS CHANGED), and so is the caller: true. NotFound,
  // FailedPrecondition when the medium is out, or what the disk says.
  absl::StatusOr<bool> RefreshCapacity(uint16_t lun);

  [[nodiscard]] bool Has(uint16_t lun) const { return lun < kMaxLuns && units_[lun] != nullptr; }
  // The disk there, for Facts; null without a unit or a medium.
  [[nodiscard]] disk::Disk* disk(uint16_t lun);

  // No command starts any more, and `done` is called when none is under way: nothing changes in
  // guest memory or a disk until Resume. Not called again before that.
  void Quiesce(std::function<void()> done);
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

  [[nodiscard]] LogicalUnit* Unit(uint16_t lun) const {
    return lun < kMaxLuns ? units_[lun].get() : nullptr;
  }
  void Publish(uint16_t lun, std::shared_ptr<const UnitStatistics> statistics);
  // Tells the guest through the units other than `lun` that units have come or gone.
  void RaiseInventoryChange(uint16_t lun);
  // A serial number that no other unit of the target has.
  [[nodiscard]] LogicalUnitOptions WithUniqueSerial(uint16_t lun, const disk::Disk& disk,
                                                    const LogicalUnitOptions& options) const;
  void ExecuteWithoutUnit(Command& command);
  void ResetNexus(std::function<void(TaskResponse)> done);
  // Ends all commands as kReset; `reset` is called with each unit before.
  void AbortEverything(const std::function<void(LogicalUnit&)>& reset);
  // Of all units or one, all commands or those with that tag.
  void AbortParked(Outcome outcome, const uint16_t* lun, const uint64_t* tag);
  [[nodiscard]] bool IsParked(uint16_t lun, const uint64_t* tag) const;

  const Poster post_;
  std::array<std::unique_ptr<LogicalUnit>, kMaxLuns> units_;
  std::vector<LogicalUnit*> leaving_;  // that Detach waits for
  // Commands that came while paused, and those that waited in a unit that was detached then.
  CommandList parked_;
  std::function<void()> on_quiet_;  // of Quiesce, until it is called

  mutable std::mutex snapshot_mutex_;
  // guarded by snapshot_mutex_
  std::array<std::shared_ptr<const UnitStatistics>, kMaxLuns> statistics_;
};

}  // namespace bothy::scsi
