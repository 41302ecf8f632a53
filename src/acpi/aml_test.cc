#include "acpi/aml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <string>

namespace bothy::acpi::aml {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

std::vector<uint8_t> Bytes(const Code& code) { return {code.bytes().begin(), code.bytes().end()}; }

TEST(AmlTest, IntegersTakeTheShortestForm) {
  EXPECT_THAT(Bytes(Integer(0)), ElementsAre(0x00));
  EXPECT_THAT(Bytes(Integer(1)), ElementsAre(0x01));
  EXPECT_THAT(Bytes(Integer(2)), ElementsAre(0x0A, 0x02));
  EXPECT_THAT(Bytes(Integer(0xFF)), ElementsAre(0x0A, 0xFF));
  EXPECT_THAT(Bytes(Integer(0x100)), ElementsAre(0x0B, 0x00, 0x01));
  EXPECT_THAT(Bytes(Integer(0x10000)), ElementsAre(0x0C, 0x00, 0x00, 0x01, 0x00));
  EXPECT_THAT(Bytes(Integer(0x1'0000'0000)), ElementsAre(0x0E, 0, 0, 0, 0, 1, 0, 0, 0));
  EXPECT_THAT(Bytes(Integer(UINT64_MAX)), ElementsAre(0xFF));
}

TEST(AmlTest, PathsAreRootedAndPrefixedByTheirLength) {
  EXPECT_THAT(Bytes(Path("PCI0")), ElementsAre('P', 'C', 'I', '0'));
  EXPECT_THAT(Bytes(Path("\\_SB_")), ElementsAre('\\', '_', 'S', 'B', '_'));
  EXPECT_THAT(Bytes(Path("\\_SB_.PCI0")),
              ElementsAre('\\', 0x2E, '_', 'S', 'B', '_', 'P', 'C', 'I', '0'));
  EXPECT_THAT(Bytes(Path("AAAA.BBBB.CCCC")),
              ElementsAre(0x2F, 3, 'A', 'A', 'A', 'A', 'B', 'B', 'B', 'B', 'C', 'C', 'C', 'C'));
}

TEST(AmlDeathTest, MalformedNamesAreRefused) {
  for (const char* name : {"", "\\", "PCI", "PCI00", "pci0", "0PCI", "PCI0.", "PCI0_SB0", "PC 0"}) {
    EXPECT_DEATH((void)Path(name), "CHECK failed") << name;
  }
}

TEST(AmlTest, EisaIdsAreCompressed) {
  EXPECT_THAT(Bytes(EisaId("PNP0A08")), ElementsAre(0x0C, 0x41, 0xD0, 0x0A, 0x08));
  EXPECT_THAT(Bytes(EisaId("PNP0501")), ElementsAre(0x0C, 0x41, 0xD0, 0x05, 0x01));
}

TEST(AmlTest, UuidsAreMixedEndian) {
  EXPECT_THAT(Bytes(Uuid("33db4d5b-1ff7-401c-9657-7441c03dd766")),
              ElementsAre(0x11, 0x13, 0x0A, 0x10, 0x5B, 0x4D, 0xDB, 0x33, 0xF7, 0x1F, 0x1C, 0x40,
                          0x96, 0x57, 0x74, 0x41, 0xC0, 0x3D, 0xD7, 0x66));
}

// A Scope whose body has `size` bytes, its name (4) included.
std::vector<uint8_t> ScopeOfBytes(size_t size) {
  Code body;
  for (size_t i = 4; i < size; ++i) body.Byte(0xA3);  // Noop
  std::vector<uint8_t> bytes = Bytes(Scope("_SB_", body));
  EXPECT_EQ(bytes[0], 0x10);
  return bytes;
}

TEST(AmlTest, PackageLengthsGrowAtTheirBoundaries) {
  struct Case {
    size_t body;
    std::vector<uint8_t> length;
  };
  // The length counts its own bytes.
  for (const Case& c : {Case{62, {0x3F}}, Case{63, {0x41, 0x04}}, Case{4093, {0x4F, 0xFF}},
                        Case{4094, {0x81, 0x00, 0x01}}, Case{1048572, {0x8F, 0xFF, 0xFF}},
                        Case{1048573, {0xC1, 0x00, 0x00, 0x01}}}) {
    const std::vector<uint8_t> bytes = ScopeOfBytes(c.body);
    ASSERT_EQ(bytes.size(), 1 + c.length.size() + c.body);
    EXPECT_THAT(std::vector<uint8_t>(bytes.begin() + 1,
                                     bytes.begin() + 1 + static_cast<ptrdiff_t>(c.length.size())),
                ElementsAreArray(c.length))
        << c.body;
  }
}

TEST(AmlTest, PackagesCountTheirElements) {
  const std::array<Code, 2> elements = {Integer(5), Integer(0)};
  EXPECT_THAT(Bytes(Name("_S5_", Package(elements))),
              ElementsAre(0x08, '_', 'S', '5', '_', 0x12, 0x05, 0x02, 0x0A, 0x05, 0x00));
}

TEST(AmlTest, MethodsCarryTheirArgumentCount) {
  EXPECT_THAT(Bytes(Method("_OSC", 4, Return(Arg(3)))),
              ElementsAre(0x14, 0x08, '_', 'O', 'S', 'C', 0x04, 0xA4, 0x6B));
}

TEST(AmlTest, ResourceTemplatesEndWithATag) {
  EXPECT_THAT(Bytes(ResourceTemplate({Io(0x3F8, 8), SharedIrq(4)})),
              ElementsAre(0x11, 0x11, 0x0A, 0x0E, 0x47, 0x01, 0xF8, 0x03, 0xF8, 0x03, 0x01, 0x08,
                          0x23, 0x10, 0x00, 0x11, 0x79, 0x00));
}

TEST(AmlTest, WindowsGiveFirstLastAndSize) {
  EXPECT_THAT(Bytes(BusNumberWindow(0, 256)),
              ElementsAre(0x88, 0x0D, 0x00, 0x02, 0x0C, 0x00, 0, 0, 0, 0, 0xFF, 0, 0, 0, 0, 1));
  EXPECT_THAT(Bytes(IoWindow(0x0D00, 0xF300)),
              ElementsAre(0x88, 0x0D, 0x00, 0x01, 0x0C, 0x03, 0, 0, 0x00, 0x0D, 0xFF, 0xFF, 0, 0,
                          0x00, 0xF3));
  EXPECT_THAT(Bytes(MemoryWindow32(0xC000'0000, 0x2000'0000)),
              ElementsAre(0x87, 0x17, 0x00, 0x00, 0x0C, 0x01, 0, 0, 0, 0, 0, 0, 0, 0xC0, 0xFF, 0xFF,
                          0xFF, 0xDF, 0, 0, 0, 0, 0, 0, 0, 0x20));
  const std::vector<uint8_t> wide = Bytes(MemoryWindow64(0x1'0000'0000, 0x10'0000'0000));
  ASSERT_EQ(wide.size(), 46U);
  EXPECT_EQ(wide[0], 0x8A);
  EXPECT_EQ(wide[1], 0x2B);
}

}  // namespace
}  // namespace bothy::acpi::aml
