// READ, WRITE and SYNCHRONIZE CACHE: data, checks, residuals, failures.
#include "scsi/limits.h"
#include "scsi/testing/target_test.h"

namespace bothy::scsi {
namespace {

using disk::Operation;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class TransferTest : public TargetTest {
 protected:
  void Record() {
    disk_.storage().on_request = [this](const disk::Request& request) {
      operations_.push_back(request.operation);
      return absl::OkStatus();
    };
  }
  void FailWith(const absl::Status& status) {
    disk_.storage().on_request = [status](const disk::Request&) { return status; };
  }

  disk::FakeDisk& disk_ = Attach(3);
  std::vector<Operation> operations_;
};

// Each form of READ and WRITE, with the block address and the number of blocks in its place.
struct Form {
  uint8_t read;
  uint8_t write;
  size_t length;
};
constexpr Form kForms[] = {{0x08, 0x0A, 6}, {0x28, 0x2A, 10}, {0xA8, 0xAA, 12}, {0x88, 0x8A, 16}};

Cdb Transfer(uint8_t opcode, size_t length, uint32_t lba, uint8_t blocks) {
  Cdb cdb(opcode, length);
  if (length == 6) return cdb.Put32(0, lba).Put8(0, opcode).Put8(4, blocks);
  if (length == 10) return cdb.Put32(2, lba).Put16(7, blocks);
  if (length == 12) return cdb.Put32(2, lba).Put32(6, blocks);
  return cdb.Put64(2, lba).Put32(10, blocks);
}

TEST_F(TransferTest, EveryFormWritesAndReadsItsBlocks) {
  uint8_t seed = 1;
  for (const Form& form : kForms) {
    SCOPED_TRACE(form.length);
    const std::vector<uint8_t> data = Pattern(3 * size_t{kTestBlockBytes}, seed++);
    const TestCommand& write =
        Run({.lun = 3, .cdb = Transfer(form.write, form.length, 1234, 3), .data_out = data});
    ExpectGood(write);
    EXPECT_EQ(write.residual, 0U);
    EXPECT_EQ(Peek(disk_, 1234 * kTestBlockBytes, data.size()), data);
    EXPECT_EQ(Peek(disk_, 1233 * kTestBlockBytes, kTestBlockBytes),
              std::vector<uint8_t>(kTestBlockBytes));
    const TestCommand& read = Run(
        {.lun = 3, .cdb = Transfer(form.read, form.length, 1234, 3), .data_in_bytes = data.size()});
    ExpectGood(read);
    EXPECT_EQ(read.residual, 0U);
    EXPECT_EQ(read.data_in(), data);
  }
}

TEST_F(TransferTest, SixByteFormsHaveAllBitsOfTheirAddressAnd256BlocksForZero) {
  const uint64_t bytes = 256 * uint64_t{kTestBlockBytes};
  const TestCommand& read =
      Run({.lun = 3, .cdb = Transfer(0x08, 6, 1792, 0), .data_in_bytes = bytes});
  ExpectGood(read);
  EXPECT_EQ(read.data_in_written, bytes);
  // 21 bits: the upper three bits of byte 1 are none of them.
  const TestCommand& beyond = Run({.lun = 3,
                                   .cdb = Cdb(0x08, 6).Put8(1, 0xFF).Put16(2, 0xFFFF).Put8(4, 1),
                                   .data_in_bytes = 512});
  EXPECT_EQ(Condition(beyond), kLbaOutOfRange);
  const TestCommand& first =
      Run({.lun = 3, .cdb = Cdb(0x08, 6).Put8(1, 0xE0).Put8(4, 1), .data_in_bytes = 512});
  ExpectGood(first);
}

TEST_F(TransferTest, NoBlocksIsNoError) {
  Record();
  for (const uint32_t lba : {0U, 2047U, 2048U}) {
    ExpectGood(Run({.lun = 3, .cdb = Read10(lba, 0)}));
    ExpectGood(Run({.lun = 3, .cdb = Write10(lba, 0)}));
  }
  EXPECT_TRUE(operations_.empty());
  EXPECT_EQ(Condition(Run({.lun = 3, .cdb = Read10(2049, 0)})), kLbaOutOfRange);
}

TEST_F(TransferTest, BlocksPastTheEndAreOutOfRange) {
  Record();
  EXPECT_EQ(Condition(Run({.lun = 3, .cdb = Read10(2047, 2), .data_in_bytes = 1024})),
            kLbaOutOfRange);
  EXPECT_EQ(Condition(Run({.lun = 3, .cdb = Write10(2048, 1), .data_out = Pattern(512)})),
            kLbaOutOfRange);
  const Cdb wraps = Cdb(0x88, 16).Put64(2, ~uint64_t{0}).Put32(10, 2);
  EXPECT_EQ(Condition(Run({.lun = 3, .cdb = wraps, .data_in_bytes = 1024})), kLbaOutOfRange);
  EXPECT_TRUE(operations_.empty());
}

TEST_F(TransferTest, RefusesMoreThanTheLimitsPageSays) {
  const auto blocks = static_cast<uint32_t>(kMaxTransferBytes / kTestBlockBytes + 1);
  ExpectInvalidField(Run({.lun = 3, .cdb = Cdb(0xA8, 12).Put32(6, blocks), .data_in_bytes = 512}),
                     6);
  ExpectInvalidField(Run({.lun = 3, .cdb = Cdb(0x8A, 16).Put32(10, blocks)}), 10);
}

TEST_F(TransferTest, BuffersLargerThanTheTransferLeaveAResidual) {
  const std::vector<uint8_t> data = Pattern(512);
  disk_.storage().Poke(512, data);
  const TestCommand& read = Run({.lun = 3, .cdb = Read10(1, 1), .data_in_bytes = 1700});
  ExpectGood(read);
  EXPECT_EQ(read.data_in(), data);
  EXPECT_EQ(read.residual, 1188U);
  const TestCommand& write =
      Run({.lun = 3, .cdb = Write10(8, 1), .data_out = Pattern(3000), .buffer_bytes = 100});
  ExpectGood(write);
  EXPECT_EQ(write.residual, 2488U);
  EXPECT_EQ(Peek(disk_, 9 * 512, 512), std::vector<uint8_t>(512));
}

TEST_F(TransferTest, BuffersSmallerThanTheTransferAreAnOverrun) {
  Record();
  const TestCommand& read = Run({.lun = 3, .cdb = Read10(0, 2), .data_in_bytes = 1023});
  EXPECT_EQ(read.outcome, Outcome::kOverrun);
  EXPECT_EQ(read.residual, 1023U);
  const TestCommand& write = Run({.lun = 3, .cdb = Write10(0, 2), .data_out = Pattern(1023)});
  EXPECT_EQ(write.outcome, Outcome::kOverrun);
  // Data the other way is no room.
  EXPECT_EQ(Run({.lun = 3, .cdb = Read10(0, 1), .data_out = Pattern(512)}).outcome,
            Outcome::kOverrun);
  EXPECT_TRUE(operations_.empty());
}

TEST_F(TransferTest, ForceUnitAccessFlushesAfterAWriteAndBeforeARead) {
  Record();
  constexpr uint8_t kFua = 0x08;
  ExpectGood(Run({.lun = 3, .cdb = Write10(0, 1, kFua), .data_out = Pattern(512)}));
  EXPECT_THAT(operations_, ElementsAre(Operation::kWrite, Operation::kFlush));
  operations_.clear();
  const TestCommand& read = Run({.lun = 3, .cdb = Read10(0, 1, kFua), .data_in_bytes = 600});
  EXPECT_THAT(operations_, ElementsAre(Operation::kFlush, Operation::kRead));
  EXPECT_EQ(read.data_in(), Pattern(512));
  EXPECT_EQ(read.residual, 88U);
  operations_.clear();
  ExpectGood(Run({.lun = 3, .cdb = Write10(0, 1), .data_out = Pattern(512)}));
  EXPECT_THAT(operations_, ElementsAre(Operation::kWrite));
}

TEST_F(TransferTest, AWriteIsNotSafeWhenItsFlushFails) {
  disk_.storage().on_request = [](const disk::Request& request) {
    return request.operation == Operation::kFlush ? absl::InternalError("sync") : absl::OkStatus();
  };
  const TestCommand& write = Run({.lun = 3, .cdb = Write10(5, 1, 0x08), .data_out = Pattern(512)});
  EXPECT_EQ(Condition(write), kWriteError);
  EXPECT_EQ(write.residual, 512U);
  EXPECT_EQ(write.sense()[0] & 0x80, 0);  // which block it is nobody knows
}

// To the guest that write alone has failed, but the host may have lost what others wrote before.
TEST_F(TransferTest, TheFailureOfAFuaWritesFlushIsToldToTheNextSynchronizeCacheToo) {
  ExpectGood(Run({.lun = 3, .cdb = Write10(0, 1), .data_out = Pattern(512)}));
  for (const bool reading : {false, true}) {
    int flushes = 0;
    disk_.storage().on_request = [&flushes](const disk::Request& request) {
      const bool first = request.operation == Operation::kFlush && flushes++ == 0;
      return first ? absl::InternalError("sync") : absl::OkStatus();
    };
    const TestCommand& fua =
        reading ? Run({.lun = 3, .cdb = Read10(5, 1, 0x08), .data_in_bytes = 512})
                : Run({.lun = 3, .cdb = Write10(5, 1, 0x08), .data_out = Pattern(512)});
    EXPECT_EQ(Condition(fua), kWriteError);
    // One more of its kind tells nothing of the others.
    ExpectGood(Run({.lun = 3, .cdb = Write10(5, 1, 0x08), .data_out = Pattern(512)}));
    EXPECT_EQ(Condition(Run({.lun = 3, .cdb = Cdb(0x35, 10)})), kWriteError);
    ExpectGood(Run({.lun = 3, .cdb = Cdb(0x35, 10)}));
    EXPECT_EQ(flushes, 4);
  }
}

TEST_F(TransferTest, DisablePageOutIsIgnoredAndProtectionIsRefused) {
  ExpectGood(Run({.lun = 3, .cdb = Read10(0, 1, 0x10), .data_in_bytes = 512}));
  ExpectInvalidField(Run({.lun = 3, .cdb = Read10(0, 1, 0x20), .data_in_bytes = 512}), 1);
  ExpectInvalidField(Run({.lun = 3, .cdb = Write10(0, 1, 0xE0), .data_out = Pattern(512)}), 1);
}

TEST_F(TransferTest, AReadErrorNamesTheBlock) {
  FailWith(absl::DataLossError("bad block"));
  const TestCommand& read = Run({.lun = 3, .cdb = Read10(77, 2), .data_in_bytes = 1024});
  EXPECT_EQ(Condition(read), kReadError);
  EXPECT_EQ(read.sense()[0], 0xF0);
  EXPECT_EQ(LoadBe<uint32_t>(&read.sense()[3]), 77U);
  EXPECT_EQ(read.residual, 1024U);
  EXPECT_EQ(read.data_in_written, 0U);
}

TEST_F(TransferTest, AFullHostIsASpaceAllocationFailure) {
  FailWith(absl::ResourceExhaustedError("no space left"));
  const TestCommand& write = Run({.lun = 3, .cdb = Write10(0, 1), .data_out = Pattern(512)});
  EXPECT_EQ(Condition(write), kSpaceAllocationFailed);
  const UnitSnapshot unit = target_.Snapshot().at(0);
  EXPECT_EQ(unit.counters.errors, 1U);
  ASSERT_TRUE(unit.last_error.has_value());
  EXPECT_THAT(unit.last_error->text, HasSubstr("write at 0: RESOURCE_EXHAUSTED: no space left"));
}

TEST_F(TransferTest, SynchronizeCacheFlushesWhateverRangeItNames) {
  Record();
  for (const Cdb& cdb : {Cdb(0x35, 10), Cdb(0x35, 10).Put32(2, 2047).Put16(7, 1),
                         Cdb(0x91, 16).Put64(2, 2048), Cdb(0x91, 16).Put8(1, 0x02)}) {
    ExpectGood(Run({.lun = 3, .cdb = cdb}));
  }
  EXPECT_THAT(operations_, ElementsAre(Operation::kFlush, Operation::kFlush, Operation::kFlush,
                                       Operation::kFlush));
  EXPECT_EQ(Condition(Run({.lun = 3, .cdb = Cdb(0x35, 10).Put32(2, 2049)})), kLbaOutOfRange);
  FailWith(absl::InternalError("sync"));
  EXPECT_EQ(Condition(Run({.lun = 3, .cdb = Cdb(0x35, 10)})), kWriteError);
}

TEST_F(TransferTest, AReadOnlyUnitIsWriteProtected) {
  disk::FakeDisk::Options image = TestDisk("/images/ro.img");
  image.geometry.read_only = true;
  Attach(4, std::move(image));
  Attach(5, TestDisk("/images/rw.img"), {.read_only = true});
  for (const uint16_t lun : {uint16_t{4}, uint16_t{5}}) {
    SCOPED_TRACE(lun);
    // Other units' coming is told first.
    Run({.lun = lun, .cdb = {0x00}});
    for (const std::vector<uint8_t>& cdb : std::vector<std::vector<uint8_t>>{
             Write10(0, 1), Cdb(0x2E, 10).Put16(7, 1), Cdb(0x89, 16).Put8(13, 1),
             Cdb(0x41, 10).Put16(7, 1), Cdb(0x93, 16).Put8(1, 1).Put32(10, 1)}) {
      const TestCommand& command = Run({.lun = lun, .cdb = cdb, .data_out = Pattern(1024)});
      EXPECT_EQ(Condition(command), kWriteProtected) << "opcode " << int{cdb[0]};
    }
    ExpectGood(Run({.lun = lun, .cdb = Read10(0, 1), .data_in_bytes = 512}));
    ExpectGood(Run({.lun = lun, .cdb = Cdb(0x35, 10)}));
    EXPECT_TRUE(target_.Snapshot().back().description.read_only);
  }
}

TEST_F(TransferTest, BlocksOf4096Bytes) {
  disk::FakeDisk::Options image = TestDisk("/images/4k.img");
  image.geometry.logical_sector_bytes = 4096;
  disk::FakeDisk& disk = Attach(6, std::move(image));
  Run({.lun = 6, .cdb = {0x00}});
  const std::vector<uint8_t> data = Pattern(4096);
  ExpectGood(Run({.lun = 6, .cdb = Write10(255, 1), .data_out = data}));
  EXPECT_EQ(Peek(disk, 255 * 4096, 4096), data);
  EXPECT_EQ(Condition(Run({.lun = 6, .cdb = Read10(256, 1), .data_in_bytes = 4096})),
            kLbaOutOfRange);
}

TEST_F(TransferTest, CountsWhatTheDiskDoes) {
  Run({.lun = 3, .cdb = Write10(0, 2, 0x08), .data_out = Pattern(1024)});
  Run({.lun = 3, .cdb = Read10(0, 1), .data_in_bytes = 512});
  Run({.lun = 3, .cdb = Read10(9999, 1), .data_in_bytes = 512});
  const UnitCounters counters = target_.Snapshot().at(0).counters;
  EXPECT_EQ(counters.commands, 4U);  // with the TEST UNIT READY of the fixture
  EXPECT_EQ(counters.writes, 1U);
  EXPECT_EQ(counters.written_bytes, 1024U);
  EXPECT_EQ(counters.flushes, 1U);
  EXPECT_EQ(counters.reads, 1U);
  EXPECT_EQ(counters.read_bytes, 512U);
  EXPECT_EQ(counters.refused, 1U);
  EXPECT_EQ(counters.errors, 0U);
  EXPECT_EQ(counters.in_flight, 0U);
}

}  // namespace
}  // namespace bothy::scsi
