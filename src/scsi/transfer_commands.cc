// READ, WRITE and SYNCHRONIZE CACHE (SBC-4, 5.14 to 5.18, 5.26, 5.38 to 5.41), and the operations
// of the disk that commands of several steps are made of.
#include <algorithm>

#include "scsi/limits.h"
#include "scsi/logical_unit.h"
#include "support/endian.h"

namespace bothy::scsi {
namespace {

constexpr uint8_t kFua = 0x08;          // byte 1 of all but the 6-byte CDBs
constexpr uint8_t kProtectMask = 0xE0;  // there, too

// Where a CDB's fields are, by the group code of its operation code (SPC-5, 4.2.5.1).
bool IsSixByte(uint8_t opcode) { return opcode >> 5 == 0; }
bool IsTenByte(uint8_t opcode) { return opcode >> 5 == 1 || opcode >> 5 == 2; }
bool IsTwelveByte(uint8_t opcode) { return opcode >> 5 == 5; }

}  // namespace

LogicalUnit::BlockRange LogicalUnit::RangeOf(const Command& command) {
  const uint8_t* cdb = command.cdb();
  if (IsSixByte(cdb[0])) {
    constexpr uint32_t kLbaMask = 0x1F'FFFF;
    return {.lba = LoadBe<uint32_t>(cdb) & kLbaMask, .blocks = cdb[4] == 0 ? 256U : cdb[4]};
  }
  if (IsTenByte(cdb[0])) {
    return {.lba = LoadBe<uint32_t>(cdb + 2), .blocks = LoadBe<uint16_t>(cdb + 7)};
  }
  if (IsTwelveByte(cdb[0])) {
    return {.lba = LoadBe<uint32_t>(cdb + 2), .blocks = LoadBe<uint32_t>(cdb + 6)};
  }
  return {.lba = LoadBe<uint64_t>(cdb + 2), .blocks = LoadBe<uint32_t>(cdb + 10)};
}

uint16_t LogicalUnit::LengthByte(const Command& command) {
  const uint8_t opcode = command.cdb()[0];
  if (IsSixByte(opcode)) return 4;
  if (IsTenByte(opcode)) return 7;
  return IsTwelveByte(opcode) ? 6 : 10;
}

bool LogicalUnit::CheckRange(Command& command, const BlockRange& range, uint64_t max_bytes) {
  if (range.blocks > max_bytes / block_bytes()) {
    InvalidField(command, LengthByte(command));
    return false;
  }
  if (!InRange(range)) {
    Check(command, kLbaOutOfRange);
    return false;
  }
  return true;
}

bool LogicalUnit::CheckProtect(Command& command) {
  if (IsSixByte(command.cdb()[0]) || (command.cdb()[1] & kProtectMask) == 0) return true;
  InvalidField(command, 1, 7);
  return false;
}

void LogicalUnit::Read(Command& command) {
  if (!CheckProtect(command)) return;
  const BlockRange range = RangeOf(command);
  if (!CheckRange(command, range, kMaxTransferBytes)) return;
  StartTransfer(command, disk::Operation::kRead, range);
}

void LogicalUnit::Write(Command& command) {
  if (!CheckProtect(command)) return;
  const BlockRange range = RangeOf(command);
  if (!CheckRange(command, range, kMaxTransferBytes)) return;
  const bool fua = !IsSixByte(command.cdb()[0]) && (command.cdb()[1] & kFua) != 0;
  command.flush_after_ = fua || !write_cache_;
  StartTransfer(command, disk::Operation::kWrite, range);
}

// The path of nearly all commands: no allocation, no coroutine.
void LogicalUnit::StartTransfer(Command& command, disk::Operation operation,
                                const BlockRange& range) {
  const uint64_t bytes = range.blocks * block_bytes();
  const bool reading = operation == disk::Operation::kRead;
  const Command::Input& input = command.input_;
  const uint64_t room = reading ? input.data_in_bytes : input.data_out_bytes;
  if (bytes > room) return Overrun(command);
  if (bytes == 0) return Good(command);
  disk::Request& transfer = command.transfer_;
  transfer.operation = operation;
  transfer.offset = range.lba * block_bytes();
  transfer.length = bytes;
  transfer.buffers = reading ? input.data_in : input.data_out;
  if (bytes < room) {
    command.trimmed_.clear();
    uint64_t left = bytes;
    for (const iovec& buffer : transfer.buffers) {
      if (left == 0) break;
      const size_t part = std::min<uint64_t>(buffer.iov_len, left);
      command.trimmed_.push_back({.iov_base = buffer.iov_base, .iov_len = part});
      left -= part;
    }
    transfer.buffers = command.trimmed_;
  }
  const bool from_medium =
      reading && !IsSixByte(command.cdb()[0]) && (command.cdb()[1] & kFua) != 0;
  if (from_medium) return Launch(ReadFromMedium(command));
  disk_->Submit(transfer);
}

void LogicalUnit::OnTransfer(Command& command, const absl::Status& status) {
  disk::Request& transfer = command.transfer_;
  const disk::Operation operation = transfer.operation;
  if (!status.ok()) return DiskFailed(command, operation, transfer.offset, status);
  if (operation == disk::Operation::kFlush && VouchesForAll(command) && !untold_flush_.ok()) {
    return DiskFailed(command, operation, 0, absl::Status(untold_flush_));
  }
  Count(operation, transfer.length, /*may_deallocate=*/false);
  if (operation == disk::Operation::kRead) {
    command.data_in_written = transfer.length;
  } else if (operation == disk::Operation::kWrite) {
    command.data_out_taken_ = transfer.length;
    if (command.flush_after_ && !command.aborted()) return StartFlush(command);
  }
  Good(command);
}

void LogicalUnit::StartFlush(Command& command) {
  disk::Request& transfer = command.transfer_;
  transfer.operation = disk::Operation::kFlush;
  transfer.offset = 0;
  transfer.length = 0;
  transfer.buffers = {};
  disk_->Submit(transfer);
}

// FUA on a read: what the cache holds goes to the medium before it is read (SBC-4, 5.15).
Task<void> LogicalUnit::ReadFromMedium(Command& command) {
  const disk::Request& transfer = command.transfer_;
  const bool flushed = co_await Operate(command, disk::Operation::kFlush, 0, 0, kNoBuffers);
  if (!flushed) co_return;
  const bool read = co_await Operate(command, disk::Operation::kRead, transfer.offset,
                                     transfer.length, transfer.buffers);
  if (!read) co_return;
  command.data_in_written = transfer.length;
  Good(command);
}

void LogicalUnit::SynchronizeCache(Command& command) {
  // IMMED allows an answer before it is done; ours comes after, so that it is true. A length of
  // zero means to the end; all is flushed in any case.
  if (!InRange(RangeOf(command))) return Check(command, kLbaOutOfRange);
  StartFlush(command);
}

Task<bool> LogicalUnit::Operate(Command& command, disk::Operation operation, uint64_t offset,
                                uint64_t length, std::span<const iovec> buffers,
                                bool may_deallocate) {
  // Between its steps a command hears that it has been aborted.
  if (command.aborted()) {
    Good(command);
    co_return false;
  }
  const absl::Status status = co_await disk::SubmitAwaiter<disk::Disk>(
      *disk_, operation, offset, length, buffers, may_deallocate);
  // A discard is a hint, which a disk needn't take.
  const bool ignored = operation == disk::Operation::kDiscard && absl::IsUnimplemented(status);
  if (!status.ok() && !ignored) {
    DiskFailed(command, operation, offset, status);
    co_return false;
  }
  Count(operation, length, may_deallocate);
  co_return true;
}

Task<bool> LogicalUnit::ReadInto(Command& command, uint64_t offset, std::span<uint8_t> bytes) {
  const iovec buffer = {.iov_base = bytes.data(), .iov_len = bytes.size()};
  const bool ok = co_await Operate(command, disk::Operation::kRead, offset, bytes.size(),
                                   std::span<const iovec>(&buffer, 1));
  co_return ok;
}

Task<bool> LogicalUnit::WriteFrom(Command& command, uint64_t offset,
                                  std::span<const uint8_t> bytes) {
  const iovec buffer = {.iov_base = const_cast<uint8_t*>(bytes.data()), .iov_len = bytes.size()};
  const bool ok = co_await Operate(command, disk::Operation::kWrite, offset, bytes.size(),
                                   std::span<const iovec>(&buffer, 1));
  co_return ok;
}

Task<void> LogicalUnit::EndWritten(Command& command, bool flush) {
  if (flush) {
    const bool flushed = co_await Operate(command, disk::Operation::kFlush, 0, 0, kNoBuffers);
    if (!flushed) co_return;
  }
  Good(command);
}

}  // namespace bothy::scsi
