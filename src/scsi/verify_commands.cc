// VERIFY, WRITE AND VERIFY and COMPARE AND WRITE (SBC-4, 5.3, 5.44 to 5.48, 5.49 to 5.52). Data
// that is compared is copied from the guest once, a part at a time.
#include <algorithm>

#include "scsi/limits.h"
#include "scsi/logical_unit.h"

namespace bothy::scsi {
namespace {

constexpr uint8_t kFua = 0x08;

// BYTCHK: compare nothing, or everything. Others compare against a single block, or are reserved.
constexpr uint8_t kNothing = 0;
constexpr uint8_t kEverything = 1;
uint8_t ByteCheck(const uint8_t* cdb) { return (cdb[1] >> 1) & 0x03; }

}  // namespace

void LogicalUnit::Verify(Command& command) {
  if (!CheckProtect(command)) return;
  const uint8_t check = ByteCheck(command.cdb());
  if (check > kEverything) return InvalidField(command, 1, 2);
  const BlockRange range = RangeOf(command);
  if (!CheckRange(command, range, kMaxTransferBytes)) return;
  const bool compare = check != kNothing;
  if (compare && range.blocks * block_bytes() > command.input_.data_out_bytes) {
    return Overrun(command);
  }
  Launch(VerifyRange(command, range, compare));
}

// Reads a part, which is all there is to verifying that it can be read, and compares it with
// `expected` unless that is empty. `start` is where the command's range begins, in bytes.
Task<bool> LogicalUnit::VerifyPart(Command& command, uint64_t start, uint64_t done,
                                   std::span<const uint8_t> expected, std::span<uint8_t> found) {
  const bool read = co_await ReadInto(command, start + done, found);
  if (!read || expected.empty()) co_return read;
  const auto at = std::mismatch(expected.begin(), expected.end(), found.begin()).first;
  if (at == expected.end()) co_return true;
  Miscompare(command, done + static_cast<uint64_t>(at - expected.begin()));
  co_return false;
}

void LogicalUnit::Miscompare(Command& command, uint64_t offset) {
  Check(command, {.condition = kMiscompareDuringVerify, .information = offset});
}

Task<void> LogicalUnit::VerifyRange(Command& command, BlockRange range, bool compare) {
  const uint64_t start = range.lba * block_bytes();
  const uint64_t total = range.blocks * block_bytes();
  std::vector<uint8_t> found(std::min(total, kScratchBytes));
  std::vector<uint8_t> expected(compare ? found.size() : 0);
  for (uint64_t done = 0; done < total; done += found.size()) {
    found.resize(std::min<uint64_t>(total - done, found.size()));
    if (compare) {
      expected.resize(found.size());
      if (!TakeDataOut(command, done, expected)) co_return;
    }
    const bool same = co_await VerifyPart(command, start, done, expected, found);
    if (!same) co_return;
  }
  Good(command);
}

void LogicalUnit::WriteAndVerify(Command& command) {
  if (!CheckProtect(command)) return;
  const uint8_t check = ByteCheck(command.cdb());
  if (check > kEverything) return InvalidField(command, 1, 2);
  const BlockRange range = RangeOf(command);
  if (!CheckRange(command, range, kMaxTransferBytes)) return;
  if (range.blocks * block_bytes() > command.input_.data_out_bytes) return Overrun(command);
  Launch(WriteAndVerifyRange(command, range, check == kEverything));
}

Task<void> LogicalUnit::WriteAndVerifyRange(Command& command, BlockRange range, bool compare) {
  const uint64_t start = range.lba * block_bytes();
  const uint64_t total = range.blocks * block_bytes();
  std::vector<uint8_t> given(std::min(total, kScratchBytes));
  std::vector<uint8_t> found(given.size());
  for (uint64_t done = 0; done < total; done += given.size()) {
    given.resize(std::min<uint64_t>(total - done, given.size()));
    found.resize(given.size());
    if (!TakeDataOut(command, done, given)) co_return;
    const bool written = co_await WriteFrom(command, start + done, given);
    if (!written) co_return;
    // What is verified is the medium, not the cache (SBC-4, 5.49).
    const bool flushed = co_await Operate(command, disk::Operation::kFlush, 0, 0, kNoBuffers);
    if (!flushed) co_return;
    const std::span<const uint8_t> expected =
        compare ? std::span<const uint8_t>(given) : std::span<const uint8_t>();
    const bool same = co_await VerifyPart(command, start, done, expected, found);
    if (!same) co_return;
  }
  Good(command);
}

void LogicalUnit::CompareAndWrite(Command& command) {
  if (!CheckProtect(command)) return;
  const uint8_t count = command.cdb()[13];
  if (count > MaxCompareAndWriteBlocks(block_bytes())) return InvalidField(command, 13);
  const BlockRange range = {.lba = RangeOf(command).lba, .blocks = count};
  if (!InRange(range)) return Check(command, kLbaOutOfRange);
  if (count == 0) return Good(command);
  Launch(CompareAndWriteRange(command, range));
}

// Nothing else of the unit is under way meanwhile (kAlone), which makes it atomic.
Task<void> LogicalUnit::CompareAndWriteRange(Command& command, BlockRange range) {
  const uint64_t start = range.lba * block_bytes();
  std::vector<uint8_t> given(2 * range.blocks * block_bytes());
  if (!TakeDataOut(command, 0, given)) co_return;
  const std::span<const uint8_t> expected = std::span(given).first(given.size() / 2);
  const std::span<const uint8_t> wanted = std::span(given).last(given.size() / 2);
  std::vector<uint8_t> found(expected.size());
  const bool same = co_await VerifyPart(command, start, 0, expected, found);
  if (!same) co_return;
  const bool written = co_await WriteFrom(command, start, wanted);
  if (!written) co_return;
  const bool flush = (command.cdb()[1] & kFua) != 0 || !write_cache_;
  co_await EndWritten(command, flush);
}

}  // namespace bothy::scsi
