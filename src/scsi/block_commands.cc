// Commands that touch the disk (SBC-4, chapter 5).
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scsi/logical_unit.h"
#include "support/endian.h"

namespace bothy::scsi {
namespace {

constexpr uint8_t kFua = 0x08;        // byte 1 of READ and WRITE 10..16
constexpr uint8_t kProtect = 0xE0;    // RDPROTECT, WRPROTECT, VRPROTECT
constexpr uint8_t kUnmapBit = 0x08;   // WRITE SAME
constexpr uint8_t kAnchor = 0x10;     // WRITE SAME; UNMAP has it in bit 0
constexpr uint8_t kNoDataOut = 0x01;  // WRITE SAME (16)
constexpr size_t kUnmapHeaderBytes = 8;
constexpr size_t kUnmapDescriptorBytes = 16;
constexpr size_t kMaxUnmapDescriptors = 256;
constexpr uint64_t kScratchBytes = 256 * 1024;

// Bytes of data_out from `skip` on, into a private copy.
size_t Gather(std::span<const iovec> buffers, uint64_t skip, std::span<uint8_t> into) {
  size_t copied = 0;
  for (const iovec& buffer : buffers) {
    if (skip >= buffer.iov_len) {
      skip -= buffer.iov_len;
      continue;
    }
    const size_t part = std::min<size_t>(buffer.iov_len - skip, into.size() - copied);
    std::memcpy(into.data() + copied, static_cast<const uint8_t*>(buffer.iov_base) + skip, part);
    copied += part;
    skip = 0;
    if (copied == into.size()) break;
  }
  return copied;
}

// A read or write of the first `length` bytes of the buffers.
Task<absl::Status> TransferExactly(disk::Disk& disk, disk::Operation operation, uint64_t offset,
                                   uint64_t length, std::span<const iovec> buffers) {
  std::vector<iovec> exact;
  for (uint64_t left = length; left > 0; left -= exact.back().iov_len) {
    const iovec& buffer = buffers[exact.size()];
    exact.push_back({buffer.iov_base, std::min<size_t>(buffer.iov_len, left)});
  }
  co_return co_await disk::SubmitAwaiter<disk::Disk>(disk, operation, offset, length, exact);
}

}  // namespace

void Command::Transfer::Complete(absl::Status status) {
  command_.unit_->OnTransfer(command_, std::move(status));
}

uint64_t LogicalUnit::blocks() const { return disk_->geometry().size_bytes / block_bytes(); }
uint32_t LogicalUnit::block_bytes() const { return disk_->geometry().logical_sector_bytes; }

// The LBA and the length, where each family of CDBs has them (SBC-4, 4.3; SPC-5, 4.2).
LogicalUnit::Range LogicalUnit::ReadRange(const Command& command) const {
  const uint8_t* cdb = command.input_.cdb.data();
  switch (cdb[0] >> 5) {
    case 0: {  // 6 bytes: 21 bits of LBA, and 0 blocks are 256
      const uint64_t count = cdb[4] == 0 ? 256 : cdb[4];
      return {.lba = LoadBe<uint32_t>(cdb) & 0x1F'FFFF, .blocks = count};
    }
    case 1:
    case 2:
      return {.lba = LoadBe<uint32_t>(cdb + 2), .blocks = LoadBe<uint16_t>(cdb + 7)};
    case 5:
      return {.lba = LoadBe<uint32_t>(cdb + 2), .blocks = LoadBe<uint32_t>(cdb + 6)};
    default:
      return {.lba = LoadBe<uint64_t>(cdb + 2), .blocks = LoadBe<uint32_t>(cdb + 10)};
  }
}

bool LogicalUnit::CheckRange(Command& command, const Range& range) {
  if (range.lba <= blocks() && range.blocks <= blocks() - range.lba) return true;
  command.sense_.Set(kLbaOutOfRange);
  command.sense_.SetInformation(range.lba);
  command.status = Status::kCheckCondition;
  End(command);
  return false;
}

bool LogicalUnit::CheckWritable(Command& command) {
  if (!disk_->geometry().read_only) return true;
  Check(command, kWriteProtected);
  return false;
}

bool LogicalUnit::CheckRoom(Command& command, uint64_t room, uint64_t bytes) {
  if (bytes <= room) return true;
  command.residual = room;
  EndAs(command, Outcome::kOverrun);
  return false;
}

void LogicalUnit::Read(Command& command) {
  const bool has_flags = command.input_.cdb[0] >> 5 != 0;
  if (has_flags && (command.input_.cdb[1] & kProtect) != 0) return InvalidField(command, 1);
  StartTransfer(command, disk::Operation::kRead, ReadRange(command));
}

void LogicalUnit::Write(Command& command) {
  const bool has_flags = command.input_.cdb[0] >> 5 != 0;
  if (has_flags && (command.input_.cdb[1] & kProtect) != 0) return InvalidField(command, 1);
  if (!CheckWritable(command)) return;
  command.flush_after_ = has_flags && (command.input_.cdb[1] & kFua) != 0;
  StartTransfer(command, disk::Operation::kWrite, ReadRange(command));
}

void LogicalUnit::StartTransfer(Command& command, disk::Operation operation, const Range& range) {
  if (!CheckRange(command, range)) return;
  const uint64_t bytes = range.blocks * block_bytes();
  const bool reading = operation == disk::Operation::kRead;
  const uint64_t room = reading ? command.input_.data_in_bytes : command.input_.data_out_bytes;
  if (!CheckRoom(command, room, bytes)) return;
  if (bytes == 0) {
    command.residual = room;
    return Good(command);
  }
  command.residual = room - bytes;
  Command::Transfer& transfer = command.transfer_;
  transfer.operation = operation;
  transfer.offset = range.lba * block_bytes();
  transfer.length = bytes;
  transfer.buffers = reading ? command.input_.data_in : command.input_.data_out;
  // The driver gave more buffers than the command fills: they end where the data does.
  if (command.residual != 0) {
    return Run(command, operation,
               TransferExactly(*disk_, operation, transfer.offset, bytes, transfer.buffers));
  }
  disk_->Submit(transfer);
}

void LogicalUnit::OnTransfer(Command& command, absl::Status status) {
  Command::Transfer& transfer = command.transfer_;
  if (status.ok() && transfer.operation == disk::Operation::kWrite &&
      std::exchange(command.flush_after_, false)) {
    written_bytes_.fetch_add(transfer.length, std::memory_order_relaxed);
    writes_.fetch_add(1, std::memory_order_relaxed);
    transfer.operation = disk::Operation::kFlush;
    transfer.offset = 0;
    transfer.length = 0;
    transfer.buffers = {};
    return disk_->Submit(transfer);
  }
  EndWith(command, transfer.operation, status);
}

// How a command that is one operation of the disk ends.
void LogicalUnit::EndWith(Command& command, disk::Operation operation, const absl::Status& status) {
  if (!status.ok()) return DiskFailed(command, operation, status);
  switch (operation) {
    case disk::Operation::kRead:
      command.data_in_written = command.input_.data_in_bytes - command.residual;
      reads_.fetch_add(1, std::memory_order_relaxed);
      read_bytes_.fetch_add(command.data_in_written, std::memory_order_relaxed);
      break;
    case disk::Operation::kWrite:
      writes_.fetch_add(1, std::memory_order_relaxed);
      written_bytes_.fetch_add(command.input_.data_out_bytes - command.residual,
                               std::memory_order_relaxed);
      break;
    case disk::Operation::kFlush:
      flushes_.fetch_add(1, std::memory_order_relaxed);
      break;
    case disk::Operation::kDiscard:
    case disk::Operation::kWriteZeroes:
      unmaps_.fetch_add(1, std::memory_order_relaxed);
      break;
  }
  Good(command);
}

void LogicalUnit::DiskFailed(Command& command, disk::Operation operation,
                             const absl::Status& status) {
  errors_.fetch_add(1, std::memory_order_relaxed);
  {
    const std::lock_guard lock(error_mutex_);
    last_error_ = std::string(status.message());
  }
  command.residual = std::max(command.input_.data_in_bytes, command.input_.data_out_bytes);
  command.data_in_written = 0;
  const bool reading = operation == disk::Operation::kRead;
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      return Check(command, kSpaceAllocationFailed);
    case absl::StatusCode::kPermissionDenied:
      return Check(command, kWriteProtected);
    case absl::StatusCode::kAborted:
      // VERIFY's own, see VerifyTask.
      return Check(command, kMiscompareDuringVerify);
    default:
      command.sense_.Set(reading ? kReadError : kWriteError);
      command.sense_.SetInformation(ReadRange(command).lba);
      command.status = Status::kCheckCondition;
      return End(command);
  }
}

void LogicalUnit::Run(Command& command, disk::Operation operation, Task<absl::Status> task) {
  Start(std::move(task),
        [this, &command, operation](absl::Status status) { EndWith(command, operation, status); });
}

void LogicalUnit::SynchronizeCache(Command& command) {
  // IMMED asks for an answer before it is done; answering later is allowed, and the truth.
  const Range range = ReadRange(command);
  if (!CheckRange(command, range)) return;
  Command::Transfer& transfer = command.transfer_;
  transfer.operation = disk::Operation::kFlush;
  transfer.offset = 0;
  transfer.length = 0;
  transfer.buffers = {};
  disk_->Submit(transfer);
}

void LogicalUnit::Verify(Command& command) {
  if ((command.input_.cdb[1] & kProtect) != 0) return InvalidField(command, 1);
  const uint8_t byte_check = (command.input_.cdb[1] >> 1) & 3;
  if (byte_check > 1) return InvalidField(command, 1);
  const Range range = ReadRange(command);
  if (!CheckRange(command, range)) return;
  if (byte_check == 0) {
    // The medium is the host's: that it can be read is what can be verified.
    Run(command, disk::Operation::kFlush, VerifyTask(command, range, false));
    return;
  }
  if (!CheckRoom(command, command.input_.data_out_bytes, range.blocks * block_bytes())) return;
  Run(command, disk::Operation::kFlush, VerifyTask(command, range, false));
}

void LogicalUnit::WriteAndVerify(Command& command) {
  if ((command.input_.cdb[1] & kProtect) != 0) return InvalidField(command, 1);
  if (((command.input_.cdb[1] >> 1) & 3) > 1) return InvalidField(command, 1);
  if (!CheckWritable(command)) return;
  const Range range = ReadRange(command);
  if (!CheckRange(command, range)) return;
  const uint64_t bytes = range.blocks * block_bytes();
  if (!CheckRoom(command, command.input_.data_out_bytes, bytes)) return;
  command.residual = command.input_.data_out_bytes - bytes;
  Run(command, disk::Operation::kWrite, VerifyTask(command, range, true));
}

// Reads the range, part by part, after writing it if asked to; compares with data_out where BYTCHK
// says so.
Task<absl::Status> LogicalUnit::VerifyTask(Command& command, Range range, bool write_first) {
  disk::Disk& disk = *disk_;
  const uint64_t total = range.blocks * block_bytes();
  const bool compare = write_first || ((command.input_.cdb[1] >> 1) & 3) == 1;
  std::vector<uint8_t> given(compare ? std::min(total, kScratchBytes) : 0);
  std::vector<uint8_t> found(std::min(total, kScratchBytes));
  for (uint64_t done = 0; done < total;) {
    const uint64_t part = std::min(total - done, kScratchBytes);
    const uint64_t at = range.lba * block_bytes() + done;
    const std::span<uint8_t> expected =
        compare ? std::span<uint8_t>(given.data(), part) : std::span<uint8_t>();
    const std::span<uint8_t> read(found.data(), part);
    if (compare) Gather(command.input_.data_out, done, expected);
    if (write_first) {
      absl::Status written = co_await disk::WriteAt(disk, at, std::span<const uint8_t>(expected));
      CO_RETURN_IF_ERROR(written);
    }
    absl::Status status = co_await disk::ReadAt(disk, at, read);
    CO_RETURN_IF_ERROR(status);
    if (compare && std::memcmp(expected.data(), read.data(), part) != 0) {
      co_return absl::AbortedError(absl::StrCat("offset ", at, ": verifying found other data"));
    }
    done += part;
  }
  if (write_first) {
    absl::Status flushed = co_await disk::Flush(disk);
    CO_RETURN_IF_ERROR(flushed);
  }
  co_return absl::OkStatus();
}

void LogicalUnit::Unmap(Command& command) {
  if ((command.input_.cdb[1] & 1) != 0) return InvalidField(command, 1);  // ANCHOR
  if (!CheckWritable(command)) return;
  const size_t length = LoadBe<uint16_t>(&command.input_.cdb[7]);
  if (length == 0) return Good(command);
  if (!CheckRoom(command, command.input_.data_out_bytes, length)) return;
  if (length < kUnmapHeaderBytes) return Check(command, kParameterListLength);
  std::vector<uint8_t> list(length);
  Gather(command.input_.data_out, 0, list);
  const size_t descriptor_bytes =
      std::min<size_t>(LoadBe<uint16_t>(&list[2]), length - kUnmapHeaderBytes);
  const size_t count = descriptor_bytes / kUnmapDescriptorBytes;
  if (count > kMaxUnmapDescriptors) return InvalidParameter(command, 2);
  std::vector<Range> ranges;
  for (size_t i = 0; i < count; ++i) {
    const uint8_t* descriptor = &list[kUnmapHeaderBytes + i * kUnmapDescriptorBytes];
    const Range range = {.lba = LoadBe<uint64_t>(descriptor),
                         .blocks = LoadBe<uint32_t>(descriptor + 8)};
    // All are checked before any is unmapped (SBC-4, 5.34.1).
    if (range.lba > blocks() || range.blocks > blocks() - range.lba) {
      return Check(command, kLbaOutOfRange);
    }
    if (range.blocks != 0) ranges.push_back(range);
  }
  command.residual = command.input_.data_out_bytes - length;
  Run(command, disk::Operation::kDiscard, UnmapTask(std::move(ranges)));
}

Task<absl::Status> LogicalUnit::UnmapTask(std::vector<Range> ranges) {
  disk::Disk& disk = *disk_;
  for (const Range& range : ranges) {
    absl::Status status =
        co_await disk::Discard(disk, range.lba * block_bytes(), range.blocks * block_bytes());
    CO_RETURN_IF_ERROR(status);
  }
  co_return absl::OkStatus();
}

void LogicalUnit::WriteSame(Command& command) {
  const bool sixteen = command.input_.cdb[0] == 0x93;
  const uint8_t flags = command.input_.cdb[1];
  if ((flags & (kProtect | kAnchor)) != 0) return InvalidField(command, 1);
  const bool no_data = sixteen && (flags & kNoDataOut) != 0;
  // The obsolete LBDATA and PBDATA.
  if ((flags & 0x06) != 0 || (!sixteen && (flags & 0x01) != 0)) return InvalidField(command, 1);
  if (!CheckWritable(command)) return;
  Range range = ReadRange(command);
  if (range.lba > blocks()) return static_cast<void>(CheckRange(command, range));
  // 0 blocks: to the end (WSNZ in the block limits page is 0).
  if (range.blocks == 0) range.blocks = blocks() - range.lba;
  if (!CheckRange(command, range)) return;
  std::vector<uint8_t> block(block_bytes());
  if (!no_data) {
    if (!CheckRoom(command, command.input_.data_out_bytes, block.size())) return;
    Gather(command.input_.data_out, 0, block);
    command.residual = command.input_.data_out_bytes - block.size();
  }
  const bool zero = std::all_of(block.begin(), block.end(), [](uint8_t b) { return b == 0; });
  if (zero) {
    Command::Transfer& transfer = command.transfer_;
    transfer.operation = disk::Operation::kWriteZeroes;
    transfer.may_deallocate = (flags & kUnmapBit) != 0;
    transfer.offset = range.lba * block_bytes();
    transfer.length = range.blocks * block_bytes();
    transfer.buffers = {};
    if (transfer.length == 0) return Good(command);
    return disk_->Submit(transfer);
  }
  Run(command, disk::Operation::kWriteZeroes, WriteSameTask(range, std::move(block)));
}

Task<absl::Status> LogicalUnit::WriteSameTask(Range range, std::vector<uint8_t> block) {
  disk::Disk& disk = *disk_;
  const uint64_t total = range.blocks * block.size();
  std::vector<uint8_t> pattern;
  while (pattern.size() < std::min(total, kScratchBytes)) {
    pattern.insert(pattern.end(), block.begin(), block.end());
  }
  for (uint64_t done = 0; done < total;) {
    const std::span<const uint8_t> part(pattern.data(),
                                        std::min<uint64_t>(total - done, pattern.size()));
    absl::Status status = co_await disk::WriteAt(disk, range.lba * block.size() + done, part);
    CO_RETURN_IF_ERROR(status);
    done += part.size();
  }
  co_return absl::OkStatus();
}

}  // namespace bothy::scsi
