// UNMAP and WRITE SAME.
#include "scsi/limits.h"
#include "scsi/testing/target_test.h"

namespace bothy::scsi {
namespace {

using disk::Operation;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Range {
  uint64_t lba;
  uint32_t blocks;
};

// An UNMAP parameter list.
std::vector<uint8_t> UnmapList(const std::vector<Range>& ranges) {
  std::vector<uint8_t> list(8 + 16 * ranges.size());
  StoreBe(&list[0], static_cast<uint16_t>(list.size() - 2));
  StoreBe(&list[2], static_cast<uint16_t>(list.size() - 8));
  for (size_t i = 0; i < ranges.size(); ++i) {
    StoreBe(&list[8 + 16 * i], ranges[i].lba);
    StoreBe(&list[16 + 16 * i], ranges[i].blocks);
  }
  return list;
}
Cdb UnmapCdb(size_t length) { return Cdb(0x42, 10).Put16(7, static_cast<uint16_t>(length)); }

class ProvisioningTest : public TargetTest {
 protected:
  struct Seen {
    Operation operation;
    uint64_t offset;
    uint64_t length;
    bool may_deallocate;
    bool operator==(const Seen&) const = default;
  };
  ProvisioningTest() { Watch(disk_); }
  void Watch(disk::FakeDisk& disk) {
    disk.storage().on_request = [this](const disk::Request& request) {
      seen_.push_back({request.operation, request.offset, request.length, request.may_deallocate});
      return absl::OkStatus();
    };
  }
  TestCommand& Unmap(const std::vector<Range>& ranges, uint16_t lun = 0) {
    const std::vector<uint8_t> list = UnmapList(ranges);
    return Run({.lun = lun, .cdb = UnmapCdb(list.size()), .data_out = list});
  }

  disk::FakeDisk& disk_ = Attach(0);
  std::vector<Seen> seen_;
};

TEST_F(ProvisioningTest, WhatIsUnmappedReadsAsZeroAndTakesNoRoom) {
  disk_.storage().Poke(0, Pattern(kTestDiskBytes));
  const TestCommand& command = Unmap({{8, 8}, {1, 1}, {100, 0}, {8, 16}});
  ExpectGood(command);
  EXPECT_EQ(command.residual, 0U);
  EXPECT_THAT(seen_, ElementsAre(Seen{Operation::kWriteZeroes, 4096, 4096, true},
                                 Seen{Operation::kWriteZeroes, 512, 512, true},
                                 Seen{Operation::kWriteZeroes, 4096, 8192, true}));
  EXPECT_EQ(Peek(disk_, 4096, 8192), std::vector<uint8_t>(8192));
  EXPECT_EQ(Peek(disk_, 12288, 1)[0], Pattern(12289)[12288]);
  EXPECT_EQ(target_.Snapshot()[0].counters.unmapped_bytes, 512U + 4096 + 8192);
}

TEST_F(ProvisioningTest, ADifferencingDiskDiscards) {
  disk::FakeDisk::Options image = TestDisk("/images/child.img");
  image.parent = std::make_unique<disk::FakeDisk>(TestDisk("/images/parent.img"));
  Watch(Attach(1, std::move(image)));
  ExpectGood(Unmap({{8, 8}}, 1));
  EXPECT_THAT(seen_, ElementsAre(Seen{Operation::kDiscard, 4096, 4096, true}));
  const TestCommand& capacity =
      Run({.lun = 1, .cdb = Cdb(0x9E, 16).Put8(1, 0x10).Put32(10, 32), .data_in_bytes = 32});
  EXPECT_EQ(capacity.data_in()[14], 0x80);  // LBPME without LBPRZ
  EXPECT_EQ(target_.Snapshot()[1].description.parents,
            std::vector<std::string>{"/images/parent.img"});
}

TEST_F(ProvisioningTest, OneRangeThatIsWrongAndNoneIsUnmapped) {
  EXPECT_EQ(Condition(Unmap({{0, 8}, {2040, 9}})), kLbaOutOfRange);
  EXPECT_EQ(Condition(Unmap({{0, 8}, {~uint64_t{0}, 2}})), kLbaOutOfRange);
  EXPECT_THAT(seen_, IsEmpty());
}

TEST_F(ProvisioningTest, ParameterListsOfAnyLength) {
  ExpectGood(Run({.lun = 0, .cdb = UnmapCdb(0)}));
  std::vector<uint8_t> list = UnmapList({{0, 8}});
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = UnmapCdb(7), .data_out = list})),
            kParameterListLengthError);
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = UnmapCdb(23), .data_out = list})),
            kParameterListLengthError);
  EXPECT_EQ(Run({.lun = 0, .cdb = UnmapCdb(25), .data_out = list}).outcome, Outcome::kOverrun);
  EXPECT_THAT(seen_, IsEmpty());
  // A descriptor that isn't whole is ignored, and so is what follows the descriptors.
  StoreBe(&list[2], uint16_t{15});
  ExpectGood(Run({.lun = 0, .cdb = UnmapCdb(24), .data_out = list}));
  EXPECT_THAT(seen_, IsEmpty());
  list = UnmapList({{0, 8}, {16, 8}});
  StoreBe(&list[2], uint16_t{17});
  ExpectGood(Run({.lun = 0, .cdb = UnmapCdb(list.size()), .data_out = list}));
  EXPECT_EQ(seen_.size(), 1U);
}

TEST_F(ProvisioningTest, AsManyDescriptorsAsTheLimitsPageSays) {
  const std::vector<Range> most(kMaxUnmapDescriptors, Range{3, 1});
  ExpectGood(Unmap(most));
  EXPECT_EQ(seen_.size(), kMaxUnmapDescriptors);
  const std::vector<Range> many(kMaxUnmapDescriptors + 1, Range{3, 1});
  ExpectInvalidParameter(Unmap(many), 2);
}

TEST_F(ProvisioningTest, AsManyBlocksAsTheLimitsPageSays) {
  disk::FakeDisk::Options image = TestDisk("/images/large.img");
  image.geometry.size_bytes = kMaxUnmapBytes;
  Watch(Attach(1, std::move(image)));
  const auto all = static_cast<uint32_t>(kMaxUnmapBytes / 512);
  ExpectGood(Unmap({{0, all}}, 1));
  seen_.clear();
  ExpectInvalidParameter(Unmap({{0, all - 1}, {5, 2}}, 1), 32);
  EXPECT_THAT(seen_, IsEmpty());
}

TEST_F(ProvisioningTest, WhereUnmappingDoesNothingThereIsNoSuchCommand) {
  disk::FakeDisk::Options image = TestDisk("/images/fixed.img");
  image.geometry.discard_granularity_bytes = 0;
  Attach(1, std::move(image));
  EXPECT_EQ(Condition(Unmap({{0, 8}}, 1)), kInvalidOpcode);
  const Cdb same = Cdb(0x93, 16).Put8(1, 0x09).Put32(10, 8);
  ExpectInvalidField(Run({.lun = 1, .cdb = same}), 1);
}

TEST_F(ProvisioningTest, AnchoringIsNotSupported) {
  const std::vector<uint8_t> list = UnmapList({{0, 8}});
  ExpectInvalidField(Run({.lun = 0, .cdb = UnmapCdb(list.size()).Put8(1, 1), .data_out = list}), 1);
  ExpectInvalidField(Run({.lun = 0, .cdb = Cdb(0x93, 16).Put8(1, 0x19).Put32(10, 8)}), 1);
}

TEST_F(ProvisioningTest, AFailedRangeEndsTheCommand) {
  disk_.storage().on_request = [](const disk::Request& request) {
    return request.offset == 4096 ? absl::DataLossError("bad") : absl::OkStatus();
  };
  const TestCommand& command = Unmap({{0, 8}, {8, 8}, {16, 8}});
  EXPECT_EQ(Condition(command), kWriteError);
  EXPECT_EQ(LoadBe<uint32_t>(&command.sense()[3]), 8U);
}

TEST_F(ProvisioningTest, WriteSameOfZerosIsOneOperation) {
  const std::vector<uint8_t> zero(512);
  ExpectGood(Run({.lun = 0, .cdb = Cdb(0x41, 10).Put32(2, 16).Put16(7, 1024), .data_out = zero}));
  ExpectGood(Run({.lun = 0, .cdb = Cdb(0x93, 16).Put8(1, 0x08).Put32(10, 8), .data_out = zero}));
  // NDOB: no data at all.
  ExpectGood(Run({.lun = 0, .cdb = Cdb(0x93, 16).Put8(1, 0x01).Put64(2, 2047).Put32(10, 1)}));
  EXPECT_THAT(seen_, ElementsAre(Seen{Operation::kWriteZeroes, 8192, 524288, false},
                                 Seen{Operation::kWriteZeroes, 0, 4096, true},
                                 Seen{Operation::kWriteZeroes, uint64_t{2047} * 512, 512, false}));
}

TEST_F(ProvisioningTest, WriteSameRepeatsItsBlock) {
  const std::vector<uint8_t> block = Pattern(512);
  // Larger than the private memory; UNMAP with data that isn't zero writes them.
  const Cdb cdb = Cdb(0x93, 16).Put8(1, 0x08).Put64(2, 7).Put32(10, 1200);
  const TestCommand& command = Run({.lun = 0, .cdb = cdb, .data_out = Pattern(600)});
  ExpectGood(command);
  EXPECT_EQ(command.residual, 88U);
  for (uint64_t lba = 7; lba < 1207; ++lba) ASSERT_EQ(Peek(disk_, lba * 512, 512), block);
  EXPECT_EQ(Peek(disk_, uint64_t{1207} * 512, 512), std::vector<uint8_t>(512));
  EXPECT_EQ(Peek(disk_, uint64_t{6} * 512, 512), std::vector<uint8_t>(512));
}

TEST_F(ProvisioningTest, WriteSameChecksItsFields) {
  const std::vector<uint8_t> zero(512);
  const auto run = [&](const Cdb& cdb) -> TestCommand& {
    return Run({.lun = 0, .cdb = cdb, .data_out = zero});
  };
  ExpectInvalidField(run(Cdb(0x41, 10).Put8(1, 0x02).Put16(7, 1)), 1);  // LBDATA
  ExpectInvalidField(run(Cdb(0x41, 10).Put8(1, 0x04).Put16(7, 1)), 1);  // PBDATA
  ExpectInvalidField(run(Cdb(0x41, 10).Put8(1, 0x20).Put16(7, 1)), 1);  // WRPROTECT
  ExpectInvalidField(run(Cdb(0x41, 10)), 7);                            // WSNZ
  ExpectInvalidField(run(Cdb(0x93, 16)), 10);
  ExpectInvalidField(run(Cdb(0x93, 16).Put32(10, 0xFFFF'FFFF)), 10);
  EXPECT_EQ(Condition(run(Cdb(0x93, 16).Put64(2, 2040).Put32(10, 9))), kLbaOutOfRange);
  EXPECT_EQ(Run({.lun = 0, .cdb = Cdb(0x41, 10).Put16(7, 1), .data_out = Pattern(511)}).outcome,
            Outcome::kOverrun);
  EXPECT_THAT(seen_, IsEmpty());
}

}  // namespace
}  // namespace bothy::scsi
