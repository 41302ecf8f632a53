// INQUIRY, vital product data, READ CAPACITY, GET LBA STATUS, REPORT LUNS, and places without a
// unit.
#include "scsi/inquiry.h"

#include <string_view>

#include "scsi/limits.h"
#include "scsi/testing/target_test.h"
#include "scsi/unit_identity.h"

namespace bothy::scsi {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::SizeIs;

std::string TextAt(const std::vector<uint8_t>& data, size_t at, size_t length) {
  return {data.begin() + static_cast<long>(at), data.begin() + static_cast<long>(at + length)};
}

class InquiryTest : public TargetTest {
 protected:
  std::vector<uint8_t> Inquiry(uint16_t lun, uint16_t allocation = 255) {
    TestCommand& command =
        Run({.lun = lun, .cdb = Cdb(0x12, 6).Put16(3, allocation), .data_in_bytes = allocation});
    ExpectGood(command);
    EXPECT_EQ(command.residual, allocation - command.data_in_written);
    return command.data_in();
  }
  std::vector<uint8_t> Page(uint8_t page, uint16_t lun = 0) {
    TestCommand& command = Run({.lun = lun,
                                .cdb = Cdb(0x12, 6).Put8(1, 1).Put8(2, page).Put16(3, 255),
                                .data_in_bytes = 255});
    ExpectGood(command);
    std::vector<uint8_t> data = command.data_in();
    EXPECT_EQ(data[0], 0);
    EXPECT_EQ(data[1], page);
    EXPECT_EQ(LoadBe<uint16_t>(&data[2]), data.size() - 4);
    return data;
  }
  std::vector<uint8_t> ReportLuns(uint16_t lun, uint8_t select = 0) {
    TestCommand& command = Run(
        {.lun = lun, .cdb = Cdb(0xA0, 12).Put8(2, select).Put32(6, 1024), .data_in_bytes = 1024});
    ExpectGood(command);
    return command.data_in();
  }
};

TEST_F(InquiryTest, StandardData) {
  AttachFresh(0, TestDisk(), {.product = "Scratch"});
  const std::vector<uint8_t> data = Inquiry(0);
  ASSERT_THAT(data, SizeIs(96));
  EXPECT_THAT(std::vector<uint8_t>(data.begin(), data.begin() + 8),
              ElementsAre(0x00, 0x00, 0x07, 0x12, 91, 0, 0, 0x02));
  EXPECT_EQ(TextAt(data, 8, 28), "BOTHY   Scratch         1.0 ");
  EXPECT_THAT(std::vector<uint8_t>(data.begin() + 58, data.begin() + 66),
              ElementsAre(0x00, 0xA0, 0x05, 0xC0, 0x06, 0x00, 0, 0));
  EXPECT_THAT(Inquiry(0, 36), SizeIs(36));
  EXPECT_THAT(Inquiry(0, 5), SizeIs(5));
  EXPECT_THAT(Inquiry(0, 0), SizeIs(0));
}

TEST_F(InquiryTest, RefusesPagesThatThereAreNot) {
  Attach(0);
  ExpectInvalidField(Run({.lun = 0,
                          .cdb = Cdb(0x12, 6).Put8(1, 1).Put8(2, 0x89).Put8(4, 255),
                          .data_in_bytes = 255}),
                     2);
  ExpectInvalidField(Run({.lun = 0, .cdb = Cdb(0x12, 6).Put8(2, 0x80).Put8(4, 255)}), 2);
  EXPECT_EQ(Run({.lun = 0, .cdb = Cdb(0x12, 6).Put8(4, 96), .data_in_bytes = 95}).outcome,
            Outcome::kOverrun);
}

TEST_F(InquiryTest, VitalProductPages) {
  Attach(0, TestDisk(), {.serial = "disk-7"});
  EXPECT_THAT(Page(0x00), ElementsAre(0, 0, 0, 7, 0x00, 0x80, 0x83, 0x86, 0xB0, 0xB1, 0xB2));
  EXPECT_EQ(TextAt(Page(0x80), 4, 6), "disk-7");
  EXPECT_THAT(Page(0x80), SizeIs(10));

  const std::vector<uint8_t> names = Page(0x83);
  ASSERT_THAT(names, SizeIs(4 + 12 + 4 + 8 + 6));
  EXPECT_THAT(std::vector<uint8_t>(names.begin() + 4, names.begin() + 8), ElementsAre(1, 3, 0, 8));
  EXPECT_EQ(LoadBe<uint64_t>(&names[8]), LocallyAssignedName("disk-7"));
  EXPECT_EQ(names[8] >> 4, 3);
  EXPECT_THAT(std::vector<uint8_t>(names.begin() + 16, names.begin() + 20),
              ElementsAre(2, 1, 0, 14));
  EXPECT_EQ(TextAt(names, 20, 14), "BOTHY   disk-7");

  const std::vector<uint8_t> extended = Page(0x86);
  ASSERT_THAT(extended, SizeIs(64));
  EXPECT_EQ(extended[5], 0x07);
  EXPECT_EQ(extended[6], 0x01);
  EXPECT_EQ(LoadBe<uint16_t>(&Page(0xB1)[4]), 1);
  EXPECT_THAT(Page(0xB2), ElementsAre(0, 0xB2, 0, 4, 0, 0xE4, 0x02, 0));
}

TEST_F(InquiryTest, BlockLimits) {
  Attach(0);
  const std::vector<uint8_t> limits = Page(0xB0);
  ASSERT_THAT(limits, SizeIs(64));
  EXPECT_EQ(limits[4], 1);
  EXPECT_EQ(limits[5], 255);
  EXPECT_EQ(LoadBe<uint16_t>(&limits[6]), 8);
  EXPECT_EQ(LoadBe<uint32_t>(&limits[8]), 65536U);
  EXPECT_EQ(LoadBe<uint32_t>(&limits[20]), 1U << 23);
  EXPECT_EQ(LoadBe<uint32_t>(&limits[24]), 256U);
  EXPECT_EQ(LoadBe<uint32_t>(&limits[28]), 8U);
  EXPECT_EQ(LoadBe<uint32_t>(&limits[32]), 0x8000'0000U);
  EXPECT_EQ(LoadBe<uint64_t>(&limits[36]), uint64_t{1} << 23);
}

TEST_F(InquiryTest, WithoutUnmappingThePagesSaySo) {
  disk::FakeDisk::Options image = TestDisk();
  image.geometry.discard_granularity_bytes = 0;
  image.geometry.logical_sector_bytes = 4096;
  Attach(0, std::move(image));
  const std::vector<uint8_t> limits = Page(0xB0);
  EXPECT_EQ(limits[5], 32);
  EXPECT_THAT(std::vector<uint8_t>(limits.begin() + 20, limits.begin() + 36),
              ElementsAreArray(std::vector<uint8_t>(16)));
  EXPECT_THAT(Page(0xB2), ElementsAre(0, 0xB2, 0, 4, 0, 0, 0, 0));
}

TEST_F(InquiryTest, NamesAreStableAndOnesOwn) {
  disk::FakeDisk::Options image = TestDisk("/images/a.vhdx");
  image.identity = *Guid::Parse("01234567-89ab-cdef-0123-456789abcdef");
  disk::FakeDisk::Options copy = TestDisk("/images/copy.vhdx");
  copy.identity = image.identity;
  Attach(0, std::move(image));
  Attach(1, std::move(copy));
  Attach(2, TestDisk("/images/raw.img"));
  Attach(3, TestDisk("/images/raw.img"));
  Attach(4, TestDisk("/images/other.img"));
  const std::vector<UnitSnapshot> units = target_.Snapshot();
  EXPECT_EQ(units[0].description.serial, "0123456789abcdef0123456789abcdef");
  EXPECT_EQ(units[1].description.serial, SerialOfPath("/images/copy.vhdx"));
  EXPECT_EQ(units[2].description.serial, "1c8e1e0704be22582cd15e7c9d7edadc");
  EXPECT_EQ(units[3].description.serial, units[2].description.serial + "-3");
  EXPECT_NE(units[4].description.serial, units[2].description.serial);
  EXPECT_EQ(LocallyAssignedName("disk-7"), 0x332C'663F'26EE'4F40U);
}

TEST_F(InquiryTest, ReadCapacity) {
  Attach(0);
  const TestCommand& ten = Run({.lun = 0, .cdb = Cdb(0x25, 10), .data_in_bytes = 8});
  ExpectGood(ten);
  EXPECT_THAT(ten.data_in(), ElementsAre(0, 0, 0x07, 0xFF, 0, 0, 2, 0));
  const Cdb cdb = Cdb(0x9E, 16).Put8(1, 0x10).Put32(10, 512);
  const TestCommand& sixteen = Run({.lun = 0, .cdb = cdb, .data_in_bytes = 512});
  ExpectGood(sixteen);
  EXPECT_EQ(sixteen.residual, 480U);
  std::vector<uint8_t> expected(32);
  StoreBe(&expected[0], uint64_t{2047});
  StoreBe(&expected[8], uint32_t{512});
  expected[13] = 3;
  expected[14] = 0xC0;
  EXPECT_EQ(sixteen.data_in(), expected);
}

TEST_F(InquiryTest, ReadCapacity10SendsLargeDisksToReadCapacity16) {
  disk::FakeDisk::Options image = TestDisk();
  image.geometry.size_bytes = uint64_t{64} << 40;
  Attach(0, std::move(image));
  const TestCommand& ten = Run({.lun = 0, .cdb = Cdb(0x25, 10), .data_in_bytes = 8});
  EXPECT_EQ(LoadBe<uint32_t>(ten.data_in().data()), 0xFFFF'FFFFU);
  const Cdb cdb = Cdb(0x9E, 16).Put8(1, 0x10).Put32(10, 32);
  const TestCommand& sixteen = Run({.lun = 0, .cdb = cdb, .data_in_bytes = 32});
  EXPECT_EQ(LoadBe<uint64_t>(sixteen.data_in().data()), (uint64_t{64} << 40) / 512 - 1);
}

TEST_F(InquiryTest, GetLbaStatusJoinsRunsOfOneKind) {
  disk::FakeDisk& disk = Attach(0);
  const std::vector<uint8_t> data = Pattern(8192);
  disk.storage().Poke(8192, data);
  const Cdb cdb = Cdb(0x9E, 16).Put8(1, 0x12).Put64(2, 3).Put32(10, 4096);
  const TestCommand& command = Run({.lun = 0, .cdb = cdb, .data_in_bytes = 4096});
  ExpectGood(command);
  std::vector<uint8_t> expected(8 + 3 * 16);
  StoreBe(&expected[0], static_cast<uint32_t>(expected.size() - 4));
  const auto put = [&](size_t at, uint64_t lba, uint32_t blocks, uint8_t status) {
    StoreBe(&expected[at], lba);
    StoreBe(&expected[at + 8], blocks);
    expected[at + 12] = status;
  };
  put(8, 3, 13, 1);
  put(24, 16, 16, 0);
  put(40, 32, 2048 - 32, 1);
  EXPECT_EQ(command.data_in(), expected);

  // Room for one: it ends where the next begins.
  Cdb one = cdb;
  const TestCommand& first = Run({.lun = 0, .cdb = one.Put32(10, 24), .data_in_bytes = 24});
  EXPECT_EQ(LoadBe<uint32_t>(&first.data_in()[0]), 20U);
  EXPECT_EQ(LoadBe<uint32_t>(&first.data_in()[16]), 13U);
}

TEST_F(InquiryTest, GetLbaStatusChecksItsFields) {
  disk::FakeDisk& disk = Attach(0);
  const Cdb cdb = Cdb(0x9E, 16).Put8(1, 0x12).Put32(10, 24);
  Cdb beyond = cdb;
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = beyond.Put64(2, 2048), .data_in_bytes = 24})),
            kLbaOutOfRange);
  Cdb type = cdb;
  ExpectInvalidField(Run({.lun = 0, .cdb = type.Put8(14, 1), .data_in_bytes = 24}), 14);
  disk.presence_status = absl::DataLossError("table");
  EXPECT_EQ(Condition(Run({.lun = 0, .cdb = cdb, .data_in_bytes = 24})), kReadError);
}

// Mapping an image's blocks begins changes of it, and makes its children useless.
TEST_F(InquiryTest, GetLbaStatusMapsNothing) {
  disk::FakeDisk& disk = Attach(0);
  disk.map_status = absl::InternalError("mapped by a command that only reads");
  const Cdb cdb = Cdb(0x9E, 16).Put8(1, 0x12).Put32(10, 24);
  ExpectGood(Run({.lun = 0, .cdb = cdb, .data_in_bytes = 24}));
}

TEST_F(InquiryTest, ReportLunsListsWhatIsThere) {
  Attach(2);
  Attach(40, TestDisk("/images/b.img"));
  const std::vector<uint8_t> expected = {0, 0, 0, 16, 0, 0,  0, 0, 0, 2, 0, 0,
                                         0, 0, 0, 0,  0, 40, 0, 0, 0, 0, 0, 0};
  // Asked of a unit, of LUN 0 where there is none, of no LUN at all.
  for (const uint16_t lun : {uint16_t{40}, uint16_t{0}, uint16_t{1000}}) {
    EXPECT_EQ(ReportLuns(lun), expected);
    EXPECT_EQ(ReportLuns(lun, 2), expected);
    EXPECT_EQ(ReportLuns(lun, 1), std::vector<uint8_t>(8));
    ExpectInvalidField(
        Run({.lun = lun, .cdb = Cdb(0xA0, 12).Put8(2, 3).Put32(6, 16), .data_in_bytes = 16}), 2);
  }
}

TEST_F(InquiryTest, APlaceWithoutAUnit) {
  Attach(2);
  for (const uint16_t lun : {uint16_t{0}, uint16_t{63}, uint16_t{64}, uint16_t{0x3FFF}}) {
    const std::vector<uint8_t> data = Inquiry(lun);
    ASSERT_THAT(data, SizeIs(96));
    EXPECT_EQ(data[0], 0x7F);
    EXPECT_EQ(data[2], 0x07);
    ExpectInvalidField(
        Run({.lun = lun, .cdb = Cdb(0x12, 6).Put8(1, 1).Put8(4, 8), .data_in_bytes = 8}), 1);
    const TestCommand& read = Run({.lun = lun, .cdb = Read10(0, 1), .data_in_bytes = 512});
    EXPECT_EQ(Condition(read), kUnitNotSupported);
    EXPECT_EQ(read.residual, 512U);
    EXPECT_EQ(Condition(Run({.lun = lun, .cdb = {0x00}})), kUnitNotSupported);
    const TestCommand& sense =
        Run({.lun = lun, .cdb = Cdb(0x03, 6).Put8(4, 252), .data_in_bytes = 252});
    ExpectGood(sense);
    ASSERT_THAT(sense.data_in(), SizeIs(18));
    EXPECT_EQ(sense.data_in()[2], 5);
    EXPECT_EQ(sense.data_in()[12], 0x25);
    EXPECT_EQ(Run({.lun = lun, .cdb = Cdb(0x12, 6).Put8(4, 36), .data_in_bytes = 35}).outcome,
              Outcome::kOverrun);
  }
}

TEST(UnitIdentityTest, TextThatInquiryCanShow) {
  EXPECT_TRUE(CheckInquiryText("a b~!", 5).ok());
  EXPECT_FALSE(CheckInquiryText("", 5).ok());
  EXPECT_FALSE(CheckInquiryText("abcdef", 5).ok());
  EXPECT_FALSE(CheckInquiryText(" a", 5).ok());
  EXPECT_FALSE(CheckInquiryText("a ", 5).ok());
  EXPECT_FALSE(CheckInquiryText("a\n", 5).ok());
  EXPECT_FALSE(CheckInquiryText("\xC3\xA4", 5).ok());
}

}  // namespace
}  // namespace bothy::scsi
