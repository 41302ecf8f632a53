// MODE SENSE and MODE SELECT.
#include "scsi/testing/target_test.h"

namespace bothy::scsi {
namespace {

using disk::Operation;
using ::testing::ElementsAre;

const std::vector<uint8_t> kRecoveryPage = {0x01, 0x0A, 0xC0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
const std::vector<uint8_t> kExceptionsPage = {0x1C, 0x0A, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0};
std::vector<uint8_t> CachingPage(uint8_t byte2) {
  std::vector<uint8_t> page(20);
  page[0] = 0x08;
  page[1] = 0x12;
  page[2] = byte2;
  return page;
}
std::vector<uint8_t> ControlPage(uint8_t byte2) {
  return {0x0A, 0x0A, byte2, 0x10, 0, 0, 0, 0, 0, 0, 0, 0};
}

std::vector<uint8_t> operator+(std::vector<uint8_t> a, const std::vector<uint8_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class ModePagesTest : public TargetTest {
 protected:
  // MODE SENSE (6), without a block descriptor.
  std::vector<uint8_t> Sense(uint8_t page, uint8_t control = 0) {
    const Cdb cdb = Cdb(0x1A, 6).Put8(1, 0x08).Put8(2, control << 6 | page).Put8(4, 255);
    TestCommand& command = Run({.lun = 0, .cdb = cdb, .data_in_bytes = 255});
    ExpectGood(command);
    const std::vector<uint8_t> data = command.data_in();
    EXPECT_EQ(data[0], data.size() - 1);
    return {data.begin() + 4, data.end()};
  }
  TestCommand& Select(const std::vector<uint8_t>& list, uint8_t flags = 0x10) {
    const auto length = static_cast<uint8_t>(list.size());
    return Run({.lun = 0, .cdb = Cdb(0x15, 6).Put8(1, flags).Put8(4, length), .data_out = list});
  }
  TestCommand& SelectPage(const std::vector<uint8_t>& page) {
    return Select(std::vector<uint8_t>{0, 0, 0, 0} + page);
  }

  disk::FakeDisk& disk_ = Attach(0);
};

TEST_F(ModePagesTest, CurrentDefaultAndChangeableValues) {
  const std::vector<uint8_t> all =
      kRecoveryPage + CachingPage(0x04) + ControlPage(0) + kExceptionsPage;
  EXPECT_EQ(Sense(0x3F), all);
  EXPECT_EQ(Sense(0x3F, 2), all);
  EXPECT_EQ(Sense(0x08), CachingPage(0x04));
  EXPECT_EQ(Sense(0x08, 1), CachingPage(0x04));
  EXPECT_THAT(Sense(0x0A, 1), ElementsAre(0x0A, 0x0A, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0));
  EXPECT_THAT(Sense(0x1C, 1), ElementsAre(0x1C, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
}

TEST_F(ModePagesTest, HeadersAndBlockDescriptors) {
  const TestCommand& six =
      Run({.lun = 0, .cdb = Cdb(0x1A, 6).Put8(2, 0x01).Put8(4, 255), .data_in_bytes = 255});
  EXPECT_EQ(six.data_in(),
            (std::vector<uint8_t>{23, 0, 0x10, 8, 0, 0, 8, 0, 0, 0, 2, 0} + kRecoveryPage));
  const TestCommand& ten =
      Run({.lun = 0, .cdb = Cdb(0x5A, 10).Put8(2, 0x01).Put16(7, 255), .data_in_bytes = 255});
  EXPECT_EQ(
      ten.data_in(),
      (std::vector<uint8_t>{0, 26, 0, 0x10, 0, 0, 0, 8, 0, 0, 8, 0, 0, 0, 2, 0} + kRecoveryPage));
  const Cdb long_lba = Cdb(0x5A, 10).Put8(1, 0x10).Put8(2, 0x01).Put16(7, 255);
  const TestCommand& with_long = Run({.lun = 0, .cdb = long_lba, .data_in_bytes = 255});
  EXPECT_EQ(with_long.data_in(), (std::vector<uint8_t>{0, 34, 0, 0x10, 1, 0, 0, 16, 0, 0, 0, 0,
                                                       0, 0,  8, 0,    0, 0, 0, 0,  0, 0, 2, 0} +
                                  kRecoveryPage));
  const TestCommand& cut =
      Run({.lun = 0, .cdb = Cdb(0x1A, 6).Put8(2, 0x3F).Put8(4, 4), .data_in_bytes = 192});
  EXPECT_THAT(cut.data_in(), ElementsAre(67, 0, 0x10, 8));
  EXPECT_EQ(cut.residual, 188U);
}

TEST_F(ModePagesTest, AReadOnlyUnitSaysSo) {
  Attach(1, TestDisk("/images/ro.img"), {.read_only = true});
  const TestCommand& six =
      Run({.lun = 1, .cdb = Cdb(0x1A, 6).Put8(2, 0x3F).Put8(4, 4), .data_in_bytes = 4});
  EXPECT_EQ(six.data_in()[2], 0x90);
}

TEST_F(ModePagesTest, ModeSenseChecksItsFields) {
  const auto sense = [this](uint8_t page, uint8_t subpage) -> TestCommand& {
    return Run({.lun = 0,
                .cdb = Cdb(0x1A, 6).Put8(2, page).Put8(3, subpage).Put8(4, 255),
                .data_in_bytes = 255});
  };
  EXPECT_EQ(Condition(sense(0xC8, 0)), kSavingNotSupported);
  ExpectInvalidField(sense(0x02, 0), 2);
  ExpectInvalidField(sense(0x0A, 1), 3);
  ExpectGood(sense(0x0A, 0xFF));
  ExpectGood(sense(0x3F, 0xFF));
}

TEST_F(ModePagesTest, WithoutAWriteCacheEveryWriteIsFlushed) {
  std::vector<Operation> operations;
  disk_.storage().on_request = [&](const disk::Request& request) {
    operations.push_back(request.operation);
    return absl::OkStatus();
  };
  ExpectGood(SelectPage(CachingPage(0)));
  EXPECT_THAT(operations, ElementsAre(Operation::kFlush));  // what was cached before
  EXPECT_EQ(Sense(0x08), CachingPage(0));
  EXPECT_EQ(Sense(0x08, 2), CachingPage(0x04));
  operations.clear();
  ExpectGood(Run({.lun = 0, .cdb = Write10(0, 1), .data_out = Pattern(512)}));
  ExpectGood(Run({.lun = 0, .cdb = Cdb(0x0A, 6).Put8(4, 1), .data_out = Pattern(512)}));
  ExpectGood(Run({.lun = 0, .cdb = Cdb(0x93, 16).Put8(1, 1).Put32(10, 1)}));
  EXPECT_THAT(operations,
              ElementsAre(Operation::kWrite, Operation::kFlush, Operation::kWrite,
                          Operation::kFlush, Operation::kWriteZeroes, Operation::kFlush));
  operations.clear();
  ExpectGood(SelectPage(CachingPage(0x04)));
  ExpectGood(Run({.lun = 0, .cdb = Write10(0, 1), .data_out = Pattern(512)}));
  EXPECT_THAT(operations, ElementsAre(Operation::kWrite));
}

TEST_F(ModePagesTest, DescriptorFormatSenseWhenAskedFor) {
  ExpectGood(SelectPage(ControlPage(0x04)));
  const TestCommand& command = Run({.lun = 0, .cdb = {0xFF}});
  EXPECT_THAT(command.sense(), ElementsAre(0x72, 5, 0x20, 0, 0, 0, 0, 0));
  disk_.storage().on_request = [](const disk::Request&) { return absl::DataLossError("bad"); };
  const TestCommand& read = Run({.lun = 0, .cdb = Read10(9, 1), .data_in_bytes = 512});
  EXPECT_THAT(read.sense(),
              ElementsAre(0x72, 3, 0x11, 0, 0, 0, 0, 12, 0, 0x0A, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 9));
}

TEST_F(ModePagesTest, ARefusedListChangesNothing) {
  std::vector<uint8_t> bad = ControlPage(0);
  bad[4] = 0x08;  // SWP
  ExpectInvalidParameter(SelectPage(CachingPage(0) + bad), 4 + 20 + 4);
  EXPECT_EQ(Sense(0x08), CachingPage(0x04));
}

TEST_F(ModePagesTest, ModeSelect10WithABlockDescriptor) {
  const auto select = [this](const std::vector<uint8_t>& list) -> TestCommand& {
    const auto length = static_cast<uint16_t>(list.size());
    return Run({.lun = 0, .cdb = Cdb(0x55, 10).Put8(1, 0x10).Put16(7, length), .data_out = list});
  };
  const std::vector<uint8_t> header = {0, 0, 0, 0x10, 0, 0, 0, 8};
  const std::vector<uint8_t> same = {0, 0, 8, 0, 0, 0, 2, 0};
  const std::vector<uint8_t> unsaid = {0, 0, 0, 0, 0, 0, 2, 0};
  ExpectGood(select(header + same + CachingPage(0x04)));
  ExpectGood(select(header + unsaid));
  ExpectInvalidParameter(select(header + std::vector<uint8_t>{0, 0, 4, 0, 0, 0, 2, 0}), 8);
  ExpectInvalidParameter(select(header + std::vector<uint8_t>{0, 0, 8, 0, 0, 0, 16, 0}), 13);
  ExpectInvalidParameter(select({0, 0, 0, 0, 1, 0, 0, 8, 0, 0, 8, 0, 0, 0, 2, 0}), 6);
  EXPECT_EQ(Condition(select({0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 8, 0, 0, 0, 2, 0})),
            kParameterListLengthError);
  ExpectGood(select(std::vector<uint8_t>{0, 0, 0, 0, 1, 0, 0, 16, 0, 0, 0, 0,
                                         0, 0, 8, 0, 0, 0, 0, 0,  0, 0, 2, 0}));
}

TEST_F(ModePagesTest, ModeSelectChecksItsFields) {
  ExpectInvalidField(Select({0, 0, 0, 0}, 0x00), 1);  // PF
  ExpectInvalidField(Select({0, 0, 0, 0}, 0x11), 1);  // SP
  ExpectGood(Select({}));
  ExpectGood(Select({0, 0, 0, 0}));
  EXPECT_EQ(Condition(Select({0, 0, 0})), kParameterListLengthError);
  EXPECT_EQ(Condition(SelectPage({0x08})), kParameterListLengthError);
  EXPECT_EQ(Condition(SelectPage({0x08, 0x12, 0x04})), kParameterListLengthError);
  ExpectInvalidParameter(SelectPage({0x08, 0x13, 0x04}), 5);
  ExpectInvalidParameter(SelectPage({0x02, 0x0E}), 4);
  ExpectInvalidParameter(SelectPage({0x4A, 0x01, 0, 0}), 4);
  ExpectInvalidParameter(SelectPage(CachingPage(0x05)), 6);  // RCD
  EXPECT_EQ(Condition(Run({.lun = 0,
                           .cdb = Cdb(0x55, 10).Put8(1, 0x10).Put16(7, 2000),
                           .data_out = std::vector<uint8_t>(2000)})),
            kParameterListLengthError);
  EXPECT_EQ(Run({.lun = 0, .cdb = Cdb(0x15, 6).Put8(1, 0x10).Put8(4, 24), .data_out = Pattern(23)})
                .outcome,
            Outcome::kOverrun);
}

}  // namespace
}  // namespace bothy::scsi
