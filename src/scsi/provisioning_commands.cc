// UNMAP and WRITE SAME (SBC-4, 5.43, 5.53, 5.54).
#include <algorithm>
#include <utility>

#include "scsi/limits.h"
#include "scsi/logical_unit.h"
#include "support/endian.h"

namespace bothy::scsi {
namespace {

constexpr size_t kListHeaderBytes = 8;
constexpr size_t kDescriptorBytes = 16;

// Byte 1 of WRITE SAME.
constexpr uint8_t kWriteSame16 = 0x93;
constexpr uint8_t kAnchor = 0x10;
constexpr uint8_t kUnmapBit = 0x08;
constexpr uint8_t kNoDataOut = 0x01;

}  // namespace

void LogicalUnit::Unmap(Command& command) {
  if ((command.cdb()[1] & 0x01) != 0) return InvalidField(command, 1, 0);  // ANCHOR
  const size_t length = LoadBe<uint16_t>(command.cdb() + 7);
  if (length == 0) return Good(command);
  if (length < kListHeaderBytes) return Check(command, kParameterListLengthError);
  if (length > command.input_.data_out_bytes) return Overrun(command);
  std::vector<uint8_t> list(
      std::min(length, kListHeaderBytes + kMaxUnmapDescriptors * kDescriptorBytes));
  if (!TakeDataOut(command, 0, list)) return;
  const size_t descriptor_bytes = LoadBe<uint16_t>(&list[2]);
  if (descriptor_bytes > length - kListHeaderBytes) {
    return Check(command, kParameterListLengthError);
  }
  const size_t count = descriptor_bytes / kDescriptorBytes;  // what is left over is ignored
  if (count > kMaxUnmapDescriptors) return InvalidParameter(command, 2);

  std::vector<BlockRange> ranges;
  ranges.reserve(count);
  uint64_t total = 0;
  // All are checked before anything is unmapped.
  for (size_t i = 0; i < count; ++i) {
    const size_t at = kListHeaderBytes + i * kDescriptorBytes;
    const BlockRange range = {.lba = LoadBe<uint64_t>(&list[at]),
                              .blocks = LoadBe<uint32_t>(&list[at + 8])};
    if (!InRange(range)) return Check(command, kLbaOutOfRange);
    total += range.blocks;
    if (total > kMaxUnmapBytes / block_bytes()) {
      return InvalidParameter(command, static_cast<uint16_t>(at + 8));
    }
    if (range.blocks != 0) ranges.push_back(range);
  }
  command.data_out_taken_ = length;
  Launch(UnmapRanges(command, std::move(ranges)));
}

// With LBPRZ promised, unmapping is writing zeros that take no room. A differencing disk could do
// that only by keeping zeros in front of its parent's data; there it is discarding, after which a
// block reads as anything.
Task<void> LogicalUnit::UnmapRanges(Command& command, std::vector<BlockRange> ranges) {
  const disk::Operation operation =
      unmapped_reads_zero() ? disk::Operation::kWriteZeroes : disk::Operation::kDiscard;
  for (const BlockRange& range : ranges) {
    const bool done = co_await Operate(command, operation, range.lba * block_bytes(),
                                       range.blocks * block_bytes(), kNoBuffers);
    if (!done) co_return;
  }
  co_await EndWritten(command, !write_cache_);
}

void LogicalUnit::WriteSame(Command& command) {
  if (!CheckProtect(command)) return;
  const uint8_t flags = command.cdb()[1];
  const bool no_data = command.cdb()[0] == kWriteSame16 && (flags & kNoDataOut) != 0;
  if ((flags & kAnchor) != 0) return InvalidField(command, 1, 4);
  const bool unmap = (flags & kUnmapBit) != 0;
  if (unmap && !can_unmap()) return InvalidField(command, 1, 3);
  // PBDATA and LBDATA, obsolete: every block would get its own address.
  if ((flags & 0x06) != 0) return InvalidField(command, 1, 2);
  const BlockRange range = RangeOf(command);
  // WSNZ of the block limits page: "to the end" isn't supported.
  if (range.blocks == 0) return InvalidField(command, LengthByte(command));
  if (!CheckRange(command, range, kMaxWriteSameBytes)) return;
  std::vector<uint8_t> block(block_bytes());
  if (!no_data && !TakeDataOut(command, 0, block)) return;
  Launch(WriteSameRange(command, range, std::move(block), unmap));
}

Task<void> LogicalUnit::WriteSameRange(Command& command, BlockRange range,
                                       std::vector<uint8_t> block, bool unmap) {
  const uint64_t start = range.lba * block.size();
  const uint64_t total = range.blocks * block.size();
  const bool zero = std::all_of(block.begin(), block.end(), [](uint8_t byte) { return byte == 0; });
  if (zero) {
    const bool done =
        co_await Operate(command, disk::Operation::kWriteZeroes, start, total, kNoBuffers, unmap);
    if (!done) co_return;
  } else {
    const uint64_t pattern_bytes = std::min(total, kScratchBytes);  // whole blocks
    std::vector<uint8_t> pattern;
    pattern.reserve(pattern_bytes);
    while (pattern.size() < pattern_bytes) {
      pattern.insert(pattern.end(), block.begin(), block.end());
    }
    for (uint64_t done = 0; done < total; done += pattern.size()) {
      pattern.resize(std::min<uint64_t>(total - done, pattern.size()));
      const bool written = co_await WriteFrom(command, start + done, pattern);
      if (!written) co_return;
    }
  }
  co_await EndWritten(command, !write_cache_);
}

}  // namespace bothy::scsi
