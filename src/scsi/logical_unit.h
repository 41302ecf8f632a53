// LogicalUnit: one disk as a SCSI direct access block device (SAM-5, SPC-5, SBC-4).
//
// It has a task set (SAM-5, clause 8): commands that wait for their turn, and those under way. A
// command takes its turn at once, unless the target is paused, the medium is out, or an ordered one
// or one for the head of the queue is in the way; if it needs private memory that another one has,
// it waits for that, too, but nobody behind it does. One for the head of the queue passes all that
// wait and doesn't mind an ordered one that is under way. Then its handler checks it and ends it,
// or starts an operation of the disk whose end goes on with it.
//
// The handlers, by subject: transfer_commands.cc (reads, writes, cache), verify_commands.cc,
// provisioning_commands.cc (unmapping, WRITE SAME), capacity_commands.cc, inquiry.cc,
// mode_pages.cc, maintenance_commands.cc (what is supported), unit_commands.cc (the rest);
// command_table.cc lists them.
//
// Loop thread only, but statistics().
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "disk/disk.h"
#include "scsi/command.h"
#include "scsi/unit_host.h"
#include "scsi/unit_statistics.h"
#include "support/log.h"
#include "support/task.h"

namespace bothy::scsi {

struct LogicalUnitOptions {
  // What the guest knows the disk by: at most kMaxSerialBytes of printable ASCII, stable, and no
  // other disk's. Empty: DefaultSerial of the disk.
  std::string serial = {};
  bool read_only = false;                // also when the disk isn't
  std::string product = "Virtual Disk";  // at most kMaxProductBytes of printable ASCII
};

// InvalidArgument: serial, product, or a geometry that SCSI can't express.
[[nodiscard]] absl::Status CheckUnit(const disk::Disk& disk, const LogicalUnitOptions& options);

class LogicalUnit {
 public:
  // CheckUnit approved of both. `host` outlives the unit.
  LogicalUnit(UnitHost& host, std::unique_ptr<disk::Disk> disk, LogicalUnitOptions options);
  // Nothing waits and nothing is under way.
  ~LogicalUnit();
  LogicalUnit(const LogicalUnit&) = delete;
  LogicalUnit& operator=(const LogicalUnit&) = delete;

  void Execute(Command& command);
  // Starts what waits and may: after a pause.
  void StartWaiting();
  // A command that waits, for it to be executed elsewhere; null when none does.
  [[nodiscard]] Command* TakeWaiting();

  // Ends commands as `outcome`, all of them or those with that tag: at once if they wait, else when
  // their I/O ends.
  void Abort(Outcome outcome, const uint64_t* tag);
  // Posts `done` when the commands aborted so far have ended; false, and it doesn't, when they
  // have.
  bool WhenAborted(std::function<void()> done);
  [[nodiscard]] bool Knows(uint64_t tag) const;
  [[nodiscard]] bool empty() const {
    return head_waiting_.empty() && waiting_.empty() && bulk_waiting_.empty() && running_.empty();
  }
  // Calls `idle` now when nothing is under way, or posts it when nothing is any more.
  void WhenIdle(std::function<void()> idle);
  // Somebody waited for that, and has been posted.
  [[nodiscard]] bool handing_over() const { return idle_posted_ != 0; }
  // Calls `done` when the disk does nothing on its own any more (Disk::Settle), maybe at once.
  // There is one, no command is under way, and none starts meanwhile.
  void Settle(std::function<void()> done);

  // The guest is told with its next command. Once each, and not what power-on tells anyway.
  void Raise(const Condition& attention);
  void ClearAttention(const Condition& attention);
  // What a logical unit reset resets (SAM-5, 6.3.3): what the guest has set. `attention` tells it.
  void ResetState(const Condition& attention);

  // Commands wait from now on.
  void HoldForMedium() { held_ = true; }
  [[nodiscard]] bool held() const { return held_; }
  // Nothing is under way.
  [[nodiscard]] std::unique_ptr<disk::Disk> TakeDisk();
  // Commands go on.
  void PutDisk(std::unique_ptr<disk::Disk> disk, LogicalUnitOptions options);
  [[nodiscard]] disk::Disk* disk() const { return disk_.get(); }
  [[nodiscard]] const LogicalUnitOptions& options() const { return options_; }
  // The statistics' description, anew.
  void Describe();
  [[nodiscard]] std::shared_ptr<const UnitStatistics> statistics() const { return statistics_; }

 private:
  friend class Command;
  friend struct CommandEntry;

  // Blocks that a command is about.
  struct BlockRange {
    uint64_t lba = 0;
    uint64_t blocks = 0;
  };

  [[nodiscard]] bool idle() const { return running_.empty() && !settling_; }
  void PostIdleWaits();

  // The course of a command.
  [[nodiscard]] bool MayRun() const { return !host_.paused() && !held_ && !alone_running_; }
  // The same for one that isn't for the head of the queue (SAM-5, 8.8).
  [[nodiscard]] bool MayRunInTurn() const {
    return MayRun() && !ordered_running_ && heads_running_ == 0 && head_waiting_.empty();
  }
  [[nodiscard]] bool MayRunAsHead(const Command& command) const;
  [[nodiscard]] bool IsItsTurn(const Command& command) const;
  void TakeTurn(Command& command);
  void Run(Command& command);
  void Dispatch(Command& command);
  void EndUnstarted(Command& command);
  void End(Command& command);
  void Good(Command& command) { End(command); }
  void Check(Command& command, const SenseData& sense);
  void Check(Command& command, const Condition& condition) {
    Check(command, SenseData{.condition = condition});
  }
  void InvalidField(Command& command, uint16_t byte, std::optional<uint8_t> bit = std::nullopt);
  void InvalidParameter(Command& command, uint16_t byte, std::optional<uint8_t> bit = std::nullopt);
  // The buffers are too small for what the CDB asks.
  void Overrun(Command& command);
  // Sends `data`, no more than the CDB's allocation length.
  void Return(Command& command, std::span<const uint8_t> data, uint64_t allocation_length);
  // Copies data_out from byte `skip` on; false when it ended the command as an overrun.
  [[nodiscard]] bool TakeDataOut(Command& command, uint64_t skip, std::span<uint8_t> into);
  // Answers a failed operation of the disk, counts it and says it to whom asks.
  void DiskFailed(Command& command, disk::Operation operation, uint64_t offset,
                  const absl::Status& status);
  void Count(disk::Operation operation, uint64_t bytes, bool may_deallocate);

  // Blocks and their place in a CDB (SPC-5, 4.2.2).
  [[nodiscard]] uint64_t blocks() const { return disk_->geometry().size_bytes / block_bytes(); }
  [[nodiscard]] uint32_t block_bytes() const { return disk_->geometry().logical_sector_bytes; }
  [[nodiscard]] bool read_only() const { return options_.read_only || disk_->geometry().read_only; }
  [[nodiscard]] static BlockRange RangeOf(const Command& command);
  [[nodiscard]] static uint16_t LengthByte(const Command& command);
  // False when it ended the command: blocks past the end, or more than the limit at once.
  [[nodiscard]] bool CheckRange(Command& command, const BlockRange& range, uint64_t max_bytes);
  // RDPROTECT, WRPROTECT or VRPROTECT: no block has protection information.
  [[nodiscard]] bool CheckProtect(Command& command);
  [[nodiscard]] bool InRange(const BlockRange& range) const {
    return range.lba <= blocks() && range.blocks <= blocks() - range.lba;
  }
  // Whether UNMAP does anything here, and whether what is unmapped reads as zero.
  [[nodiscard]] bool can_unmap() const {
    return disk_->geometry().discard_granularity_bytes != 0 && !read_only();
  }
  [[nodiscard]] bool unmapped_reads_zero() const { return disk_->parent() == nullptr; }

  // transfer_commands.cc
  void StartTransfer(Command& command, disk::Operation operation, const BlockRange& range);
  void OnTransfer(Command& command, const absl::Status& status);
  void StartFlush(Command& command);
  Task<void> ReadFromMedium(Command& command);
  static constexpr std::span<const iovec> kNoBuffers{};
  // Operations for commands of several steps; what fails ends the command, and is false.
  Task<bool> Operate(Command& command, disk::Operation operation, uint64_t offset, uint64_t length,
                     std::span<const iovec> buffers, bool may_deallocate = true);
  Task<bool> ReadInto(Command& command, uint64_t offset, std::span<uint8_t> bytes);
  Task<bool> WriteFrom(Command& command, uint64_t offset, std::span<const uint8_t> bytes);
  // Ends a command that wrote, flushing before if it must.
  Task<void> EndWritten(Command& command, bool flush);
  static void Launch(Task<void> task) {
    Start(std::move(task), [] {});
  }

  Task<void> VerifyRange(Command& command, BlockRange range, bool compare);
  Task<void> WriteAndVerifyRange(Command& command, BlockRange range, bool compare);
  Task<void> CompareAndWriteRange(Command& command, BlockRange range);
  Task<bool> VerifyPart(Command& command, uint64_t start, uint64_t done,
                        std::span<const uint8_t> expected, std::span<uint8_t> found);
  void Miscompare(Command& command, uint64_t offset);
  Task<void> UnmapRanges(Command& command, std::vector<BlockRange> ranges);
  Task<void> WriteSameRange(Command& command, BlockRange range, std::vector<uint8_t> block,
                            bool unmap);
  Task<void> FindLbaStatus(Command& command, uint64_t lba, uint32_t allocation_length);

  // The commands.
  void Read(Command& command);
  void Write(Command& command);
  void SynchronizeCache(Command& command);
  // Whether its answer is about everything that was written before.
  [[nodiscard]] static bool VouchesForAll(const Command& command);
  void Verify(Command& command);
  void WriteAndVerify(Command& command);
  void CompareAndWrite(Command& command);
  void Unmap(Command& command);
  void WriteSame(Command& command);
  void ReadCapacity10(Command& command);
  void ReadCapacity16(Command& command);
  void GetLbaStatus(Command& command);
  void Inquiry(Command& command);
  void ModeSense(Command& command);
  void ModeSelect(Command& command);
  void ReportLuns(Command& command);
  void ReportOpcodes(Command& command);
  void ReportTaskManagement(Command& command);
  void TestUnitReady(Command& command);
  void StartStopUnit(Command& command);
  void RequestSense(Command& command);
  void PreventMediumRemoval(Command& command);
  void SendDiagnostic(Command& command);

  [[nodiscard]] std::vector<uint8_t> VitalProductData(uint8_t page) const;
  struct ModePage {
    std::vector<uint8_t> current;  // with its header
    std::vector<uint8_t> changeable;
    std::vector<uint8_t> defaults;
  };
  [[nodiscard]] std::vector<ModePage> ModePages() const;

  UnitHost& host_;
  std::unique_ptr<disk::Disk> disk_;
  LogicalUnitOptions options_;
  const std::shared_ptr<UnitStatistics> statistics_ = std::make_shared<UnitStatistics>();
  LogLimiter log_;

  // The failure of a flush that was part of another command (FUA, no write cache): to the guest
  // that command alone has failed, so the next SYNCHRONIZE CACHE fails, too, for what else was
  // lost.
  absl::Status untold_flush_;

  // What the guest has set, and what it shall be told.
  bool stopped_ = false;           // START STOP UNIT
  bool write_cache_ = true;        // WCE of the caching mode page
  bool descriptor_sense_ = false;  // D_SENSE of the control mode page
  std::vector<Condition> attentions_{kPowerOn};

  // The task set.
  CommandList head_waiting_;  // for the head of the queue, and it can't be run yet
  CommandList waiting_;       // for their turn
  CommandList bulk_waiting_;  // had their turn, wait for the private memory
  CommandList running_;
  uint64_t next_sequence_ = 1;
  bool ordered_running_ = false;
  bool alone_running_ = false;  // a command that must be alone
  bool bulk_running_ = false;   // a command that has the private memory
  size_t heads_running_ = 0;    // commands for the head of the queue
  bool starting_ = false;       // within StartWaiting
  bool held_ = false;           // the medium is out, or on its way
  struct AbortWait {
    uint64_t before = 0;  // the sequence of commands that it is about
    std::function<void()> done;
  };
  std::vector<AbortWait> abort_waits_;
  std::vector<std::function<void()>> idle_waits_;
  size_t idle_posted_ = 0;  // of them, posted and not called yet
  bool settling_ = false;
};

}  // namespace bothy::scsi
