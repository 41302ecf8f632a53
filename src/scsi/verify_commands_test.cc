// VERIFY, WRITE AND VERIFY, COMPARE AND WRITE.
#include "scsi/limits.h"
#include "scsi/testing/target_test.h"

namespace bothy::scsi {
namespace {

using disk::Operation;
using ::testing::ElementsAre;

constexpr uint8_t kCompareAll = 0x02;  // BYTCHK 01b

class VerifyTest : public TargetTest {
 protected:
  disk::FakeDisk& disk_ = Attach(0);
};

TEST_F(VerifyTest, EveryFormComparesWhenAskedTo) {
  const std::vector<uint8_t> data = Pattern(1024);
  disk_.storage().Poke(10 * 512, data);
  std::vector<uint8_t> other = data;
  other[777] ^= 1;
  for (const Cdb& cdb : {Cdb(0x2F, 10).Put8(1, kCompareAll).Put32(2, 10).Put16(7, 2),
                         Cdb(0xAF, 12).Put8(1, kCompareAll).Put32(2, 10).Put32(6, 2),
                         Cdb(0x8F, 16).Put8(1, kCompareAll).Put64(2, 10).Put32(10, 2)}) {
    const TestCommand& same = Run({.lun = 0, .cdb = cdb, .data_out = data});
    ExpectGood(same);
    EXPECT_EQ(same.residual, 0U);
    const TestCommand& different = Run({.lun = 0, .cdb = cdb, .data_out = other});
    EXPECT_EQ(Condition(different), kMiscompareDuringVerify);
    EXPECT_EQ(LoadBe<uint32_t>(&different.sense()[3]), 777U);
  }
}

TEST_F(VerifyTest, WithoutComparingItReadsTheMedium) {
  const Cdb cdb = Cdb(0x2F, 10).Put32(2, 100).Put16(7, 1024);
  std::vector<std::pair<uint64_t, uint64_t>> reads;
  disk_.storage().on_request = [&](const disk::Request& request) {
    EXPECT_EQ(request.operation, Operation::kRead);
    reads.emplace_back(request.offset, request.length);
    return absl::OkStatus();
  };
  ExpectGood(Run({.lun = 0, .cdb = cdb}));
  EXPECT_THAT(reads, ElementsAre(std::pair(100 * 512U, kScratchBytes),
                                 std::pair(100 * 512U + kScratchBytes, kScratchBytes)));
  disk_.storage().on_request = [](const disk::Request& request) {
    return request.offset >= 200 * 512 ? absl::DataLossError("bad") : absl::OkStatus();
  };
  const TestCommand& bad = Run({.lun = 0, .cdb = cdb});
  EXPECT_EQ(Condition(bad), kReadError);
  EXPECT_EQ(LoadBe<uint32_t>(&bad.sense()[3]), 612U);
}

TEST_F(VerifyTest, ChecksItsFields) {
  ExpectInvalidField(Run({.lun = 0, .cdb = Cdb(0x2F, 10).Put8(1, 0x04).Put16(7, 1)}), 1);
  ExpectInvalidField(Run({.lun = 0, .cdb = Cdb(0x2F, 10).Put8(1, 0x06).Put16(7, 1)}), 1);
  ExpectInvalidField(Run({.lun = 0, .cdb = Cdb(0x2F, 10).Put8(1, 0x20).Put16(7, 1)}), 1);
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = Cdb(0x2F, 10).Put32(2, 2048).Put16(7, 1)})),
            kLbaOutOfRange);
  const auto many = static_cast<uint32_t>(kMaxTransferBytes / 512 + 1);
  ExpectInvalidField(Run({.lun = 0, .cdb = Cdb(0x8F, 16).Put32(10, many)}), 10);
  const Cdb compare = Cdb(0x2F, 10).Put8(1, kCompareAll).Put16(7, 2);
  EXPECT_EQ(Run({.lun = 0, .cdb = compare, .data_out = Pattern(1023)}).outcome, Outcome::kOverrun);
  ExpectGood(Run({.lun = 0, .cdb = Cdb(0x2F, 10)}));
}

TEST_F(VerifyTest, WriteAndVerifyWritesThenReadsTheMedium) {
  std::vector<Operation> operations;
  disk_.storage().on_request = [&](const disk::Request& request) {
    operations.push_back(request.operation);
    return absl::OkStatus();
  };
  const std::vector<uint8_t> data = Pattern(2048);
  uint32_t lba = 40;
  for (const Cdb& cdb : {Cdb(0x2E, 10).Put32(2, 40).Put16(7, 4),
                         Cdb(0xAE, 12).Put8(1, kCompareAll).Put32(2, 50).Put32(6, 4),
                         Cdb(0x8E, 16).Put64(2, 60).Put32(10, 4)}) {
    ExpectGood(Run({.lun = 0, .cdb = cdb, .data_out = data}));
    EXPECT_THAT(operations, ElementsAre(Operation::kWrite, Operation::kFlush, Operation::kRead));
    EXPECT_EQ(Peek(disk_, lba * 512, data.size()), data);
    operations.clear();
    lba += 10;
  }
}

TEST_F(VerifyTest, WriteAndVerifyTellsAMediumThatForgets) {
  disk_.storage().on_request = [&](const disk::Request& request) {
    const uint8_t rotten = 0;
    if (request.operation == Operation::kRead) disk_.storage().Poke(700, {&rotten, 1});
    return absl::OkStatus();
  };
  const Cdb cdb = Cdb(0x2E, 10).Put8(1, kCompareAll).Put16(7, 2);
  const TestCommand& command = Run({.lun = 0, .cdb = cdb, .data_out = Pattern(1024)});
  EXPECT_EQ(Condition(command), kMiscompareDuringVerify);
  EXPECT_EQ(LoadBe<uint32_t>(&command.sense()[3]), 700U);
}

TEST_F(VerifyTest, LargeDataGoPartByPart) {
  const std::vector<uint8_t> data = Pattern(kScratchBytes * 2 + 512);
  const auto blocks = static_cast<uint16_t>(data.size() / 512);
  const Cdb write = Cdb(0x2E, 10).Put8(1, kCompareAll).Put32(2, 1).Put16(7, blocks);
  ExpectGood(Run({.lun = 0, .cdb = write, .data_out = data, .buffer_bytes = 4000}));
  EXPECT_EQ(Peek(disk_, 512, data.size()), data);
  std::vector<uint8_t> other = data;
  other.back() ^= 0x80;
  const Cdb verify = Cdb(0x2F, 10).Put8(1, kCompareAll).Put32(2, 1).Put16(7, blocks);
  const TestCommand& differs = Run({.lun = 0, .cdb = verify, .data_out = other});
  EXPECT_EQ(Condition(differs), kMiscompareDuringVerify);
  EXPECT_EQ(LoadBe<uint32_t>(&differs.sense()[3]), data.size() - 1);
}

Cdb CompareAndWriteCdb(uint64_t lba, uint8_t blocks, uint8_t flags = 0) {
  return Cdb(0x89, 16).Put8(1, flags).Put64(2, lba).Put8(13, blocks);
}

TEST_F(VerifyTest, CompareAndWriteWritesWhenItFindsWhatItExpects) {
  const std::vector<uint8_t> before = Pattern(1024, 1);
  const std::vector<uint8_t> after = Pattern(1024, 2);
  disk_.storage().Poke(512, before);
  std::vector<uint8_t> both = before;
  both.insert(both.end(), after.begin(), after.end());
  ExpectGood(Run({.lun = 0, .cdb = CompareAndWriteCdb(1, 2), .data_out = both}));
  EXPECT_EQ(Peek(disk_, 512, 1024), after);
  // Now it isn't there any more.
  const TestCommand& again = Run({.lun = 0, .cdb = CompareAndWriteCdb(1, 2), .data_out = both});
  EXPECT_EQ(Condition(again), kMiscompareDuringVerify);
  EXPECT_EQ(again.sense()[0], 0xF0);
  EXPECT_EQ(LoadBe<uint32_t>(&again.sense()[3]), 0U);
  EXPECT_EQ(Peek(disk_, 512, 1024), after);
}

TEST_F(VerifyTest, CompareAndWriteChecksItsFields) {
  ExpectGood(Run({.lun = 0, .cdb = CompareAndWriteCdb(5, 0)}));
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = CompareAndWriteCdb(2047, 2)})), kLbaOutOfRange);
  EXPECT_EQ(Run({.lun = 0, .cdb = CompareAndWriteCdb(0, 1), .data_out = Pattern(1023)}).outcome,
            Outcome::kOverrun);
  disk::FakeDisk::Options image = TestDisk("/images/4k.img");
  image.geometry.logical_sector_bytes = 4096;
  Attach(1, std::move(image));
  ExpectInvalidField(Run({.lun = 1, .cdb = CompareAndWriteCdb(0, 33)}), 13);
}

TEST_F(VerifyTest, CompareAndWriteIsAlone) {
  // Two that expect the same: one of them wins, however their I/O would fall.
  std::vector<uint8_t> first(512);
  std::vector<uint8_t> second(512);
  const std::vector<uint8_t> mine = Pattern(512, 3);
  const std::vector<uint8_t> yours = Pattern(512, 4);
  first.insert(first.end(), mine.begin(), mine.end());
  second.insert(second.end(), yours.begin(), yours.end());
  const TestCommand& read = Begin({.lun = 0, .cdb = Read10(0, 1), .data_in_bytes = 512});
  const TestCommand& a = Begin({.lun = 0, .cdb = CompareAndWriteCdb(0, 1), .data_out = first});
  const TestCommand& b = Begin({.lun = 0, .cdb = CompareAndWriteCdb(0, 1), .data_out = second});
  const TestCommand& later = Begin({.lun = 0, .cdb = Read10(0, 1), .data_in_bytes = 512});
  EXPECT_EQ(disk_.storage().waiting(), 1U);  // the read before it
  disk_.Pump();
  EXPECT_TRUE(read.done());
  EXPECT_EQ(disk_.storage().waiting(), 1U);  // the first's read
  Settle();
  ExpectGood(a);
  EXPECT_EQ(Condition(b), kMiscompareDuringVerify);
  EXPECT_EQ(later.data_in(), mine);
}

}  // namespace
}  // namespace bothy::scsi
