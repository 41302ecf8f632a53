// LogicalUnit: one disk as a SCSI direct access block device (SPC-5, SBC-4).
//
// Handlers of its commands by subject: block_commands.cc (what touches the disk), inquiry.cc,
// mode_pages.cc, and logical_unit.cc for the rest. Everything on the loop's thread, but counters()
// and last_error().
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "disk/disk.h"
#include "scsi/command.h"

namespace bothy::scsi {

class LogicalUnit {
 public:
  // `serial` is what a guest knows the disk by, printable ASCII: stable, and no other disk's.
  LogicalUnit(std::unique_ptr<disk::Disk> disk, std::string serial);
  ~LogicalUnit();

  void Execute(Command& command);

  // Task management: marks commands, which end as `as` when their I/O has. Returns how many.
  size_t Abort(Outcome as, const uint64_t* tag);
  [[nodiscard]] bool Knows(uint64_t tag) const;
  [[nodiscard]] bool idle() const { return in_flight_ == 0; }
  // Calls `idle` when none of the commands now under way is any more.
  void WhenIdle(std::function<void()> idle);
  void Raise(const Condition& attention) { attentions_.push_back(attention); }

  // Nothing is under way.
  std::unique_ptr<disk::Disk> ReplaceDisk(std::unique_ptr<disk::Disk> disk, std::string serial);
  [[nodiscard]] disk::Disk* disk() { return disk_.get(); }
  [[nodiscard]] const std::string& serial() const { return serial_; }

  struct Counters {
    uint64_t reads = 0;
    uint64_t writes = 0;
    uint64_t flushes = 0;
    uint64_t unmaps = 0;
    uint64_t read_bytes = 0;
    uint64_t written_bytes = 0;
    uint64_t errors = 0;
  };
  // Any thread.
  [[nodiscard]] Counters counters() const;
  [[nodiscard]] std::string last_error() const;

 private:
  friend class Command;
  using Handler = void (LogicalUnit::*)(Command&);
  struct Entry {
    uint8_t opcode;
    uint8_t length;  // of the CDB
    Handler handler;
    bool despite_attention;  // answers although a unit attention is pending (SPC-5, 5.14)
  };
  static const Entry* Find(uint8_t opcode);
  static std::span<const Entry> Table();

  // Blocks that a command is about.
  struct Range {
    uint64_t lba = 0;
    uint64_t blocks = 0;
  };

  // Ends of a command.
  void Good(Command& command);
  void Check(Command& command, const Condition& condition);
  // ILLEGAL REQUEST, INVALID FIELD IN CDB at that byte.
  void InvalidField(Command& command, uint16_t byte);
  void InvalidParameter(Command& command, uint16_t byte);
  void EndAs(Command& command, Outcome outcome);
  void End(Command& command);
  // The answer to a failed request of the disk; it is counted and remembered.
  void DiskFailed(Command& command, disk::Operation operation, const absl::Status& status);
  void EndWith(Command& command, disk::Operation operation, const absl::Status& status);
  // Sends `data`, no more than the CDB's allocation length, and ends well.
  void Return(Command& command, std::span<const uint8_t> data, uint64_t allocation_length);

  // Checks of what touches the disk; false when they ended the command.
  bool CheckRange(Command& command, const Range& range);
  bool CheckWritable(Command& command);
  bool CheckRoom(Command& command, uint64_t room, uint64_t bytes);
  void StartTransfer(Command& command, disk::Operation operation, const Range& range);
  void OnTransfer(Command& command, absl::Status status);
  [[nodiscard]] Range ReadRange(const Command& command) const;
  [[nodiscard]] uint64_t blocks() const;
  [[nodiscard]] uint32_t block_bytes() const;
  // Runs an operation of several steps and ends the command with what it returns.
  void Run(Command& command, disk::Operation operation, Task<absl::Status> task);
  Task<absl::Status> VerifyTask(Command& command, Range range, bool write_first);
  Task<absl::Status> UnmapTask(std::vector<Range> ranges);
  Task<absl::Status> WriteSameTask(Range range, std::vector<uint8_t> block);

  void Inquiry(Command& command);
  void VitalProductData(Command& command, uint8_t page, uint64_t allocation_length);
  void ReadCapacity10(Command& command);
  void ServiceActionIn16(Command& command);
  void ReadCapacity16(Command& command);
  void GetLbaStatus(Command& command);
  void Read(Command& command);
  void Write(Command& command);
  void Verify(Command& command);
  void WriteAndVerify(Command& command);
  void SynchronizeCache(Command& command);
  void Unmap(Command& command);
  void WriteSame(Command& command);
  void ModeSense(Command& command);
  void ModeSelect(Command& command);
  void TestUnitReady(Command& command);
  void StartStopUnit(Command& command);
  void RequestSense(Command& command);
  void PreventMediumRemoval(Command& command);
  void SendDiagnostic(Command& command);
  void MaintenanceIn(Command& command);
  void ReportOpcodes(Command& command);
  std::vector<uint8_t> ModePages(uint8_t page, uint8_t control) const;

  std::unique_ptr<disk::Disk> disk_;
  std::string serial_;
  bool stopped_ = false;  // by START STOP UNIT
  std::vector<Condition> attentions_;
  Command* first_ = nullptr;  // under way
  size_t in_flight_ = 0;
  std::vector<std::function<void()>> on_idle_;

  std::atomic<uint64_t> reads_{0};
  std::atomic<uint64_t> writes_{0};
  std::atomic<uint64_t> flushes_{0};
  std::atomic<uint64_t> unmaps_{0};
  std::atomic<uint64_t> read_bytes_{0};
  std::atomic<uint64_t> written_bytes_{0};
  std::atomic<uint64_t> errors_{0};
  mutable std::mutex error_mutex_;
  std::string last_error_;  // guarded by error_mutex_
};

}  // namespace bothy::scsi
