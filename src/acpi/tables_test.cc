#include "acpi/tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <numeric>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>

#include "chipset/legacy_ports.h"
#include "support/endian.h"
#include "support/testing/test_folder.h"

namespace bothy::acpi {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

memory::Layout TestLayout(uint64_t ram_mib = 512) {
  return *memory::ComputeLayout({.ram_bytes = ram_mib * memory::kMiB, .physical_address_bits = 40});
}

TablesConfig TestConfig(uint32_t processors) {
  const memory::Layout layout = TestLayout();
  TablesConfig config{.processors = {},
                      .serial_ports = {0, 1, 2, 3},
                      .ecam = layout.ecam,
                      .pci_mmio32 = layout.pci_mmio32,
                      .pci_mmio64 = layout.pci_mmio64};
  for (uint32_t i = 0; i < processors; ++i) config.processors.push_back({.apic_id = i});
  return config;
}

// The tables of an area, found the way a guest finds them.
class Tables {
 public:
  explicit Tables(std::vector<uint8_t> area) : area_(std::move(area)) {
    const uint64_t xsdt = At<uint64_t>(kTableArea.base + 24);
    Add(xsdt);
    const uint32_t entries = (Length(xsdt) - 36) / 8;
    for (uint32_t i = 0; i < entries; ++i) Add(At<uint64_t>(xsdt + 36 + uint64_t{8} * i));
    const uint64_t fadt = Gpa("FACP");
    Add(At<uint32_t>(fadt + 36));  // FACS
    Add(At<uint64_t>(fadt + 140));
  }

  template <typename T>
  [[nodiscard]] T At(uint64_t gpa) const {
    EXPECT_GE(gpa, kTableArea.base);
    EXPECT_LE(gpa + sizeof(T), kTableArea.base + area_.size());
    return LoadLe<T>(area_.data() + (gpa - kTableArea.base));
  }
  [[nodiscard]] uint32_t Length(uint64_t gpa) const { return At<uint32_t>(gpa + 4); }
  [[nodiscard]] uint64_t Gpa(const std::string& signature) const {
    const auto it = tables_.find(signature);
    EXPECT_NE(it, tables_.end()) << signature;
    return it == tables_.end() ? 0 : it->second;
  }
  [[nodiscard]] std::span<const uint8_t> Bytes(const std::string& signature) const {
    return Range(Gpa(signature), Length(Gpa(signature)));
  }
  [[nodiscard]] std::span<const uint8_t> Range(uint64_t gpa, uint64_t size) const {
    return std::span(area_).subspan(gpa - kTableArea.base, size);
  }
  [[nodiscard]] const std::map<std::string, uint64_t>& all() const { return tables_; }

 private:
  void Add(uint64_t gpa) {
    const std::span<const uint8_t> name = Range(gpa, 4);
    tables_[std::string(name.begin(), name.end())] = gpa;
  }

  std::vector<uint8_t> area_;
  std::map<std::string, uint64_t> tables_;
};

Tables TablesFor(const TablesConfig& config) {
  auto area = BuildTables(config);
  EXPECT_TRUE(area.ok()) << area.status();
  return Tables(*area);
}

uint8_t Sum(std::span<const uint8_t> bytes) {
  return static_cast<uint8_t>(std::accumulate(bytes.begin(), bytes.end(), 0U));
}

TEST(AcpiTablesTest, EveryTableIsThereOnceAndSumsUpToZero) {
  const Tables tables = TablesFor(TestConfig(4));
  EXPECT_EQ(tables.all().size(), 6U);  // XSDT, FADT, MADT, MCFG, FACS, DSDT
  for (const char* signature : {"XSDT", "FACP", "APIC", "MCFG", "DSDT"}) {
    EXPECT_EQ(Sum(tables.Bytes(signature)), 0) << signature;
  }
  EXPECT_EQ(tables.Length(tables.Gpa("FACS")), 64U);
  EXPECT_EQ(tables.Gpa("FACS") % 64, 0U);
}

TEST(AcpiTablesTest, RsdpIsFoundWhereGuestsScanForIt) {
  const Tables tables = TablesFor(TestConfig(1));
  static_assert(kTableArea.base % 16 == 0);
  const std::span<const uint8_t> rsdp = tables.Range(kTableArea.base, 36);
  EXPECT_EQ(std::string(rsdp.begin(), rsdp.begin() + 8), "RSD PTR ");
  EXPECT_EQ(rsdp[15], 2);  // revision
  EXPECT_EQ(Sum(rsdp.first(20)), 0);
  EXPECT_EQ(Sum(rsdp), 0);
}

TEST(AcpiTablesTest, FadtNamesTheChipsetsPorts) {
  const Tables tables = TablesFor(TestConfig(1));
  const uint64_t fadt = tables.Gpa("FACP");
  EXPECT_EQ(tables.Length(fadt), 276U);
  EXPECT_EQ(tables.At<uint16_t>(fadt + 46), chipset::kSciIrq);
  EXPECT_EQ(tables.At<uint32_t>(fadt + 48), 0U);  // SMI_CMD
  EXPECT_EQ(tables.At<uint32_t>(fadt + 56), chipset::kPm1aEventPort);
  EXPECT_EQ(tables.At<uint32_t>(fadt + 64), chipset::kPm1aControlPort);
  EXPECT_EQ(tables.At<uint32_t>(fadt + 76), chipset::kPmTimerPort);
  EXPECT_EQ(tables.At<uint8_t>(fadt + 88), 4);
  EXPECT_EQ(tables.At<uint8_t>(fadt + 89), 2);
  EXPECT_EQ(tables.At<uint8_t>(fadt + 91), 4);
  const uint16_t boot_architecture = tables.At<uint16_t>(fadt + 109);
  EXPECT_EQ(boot_architecture & 1 << 1, 0);  // no 8042
  EXPECT_EQ(boot_architecture & 1 << 3, 0);  // MSI works
  EXPECT_NE(boot_architecture & 1 << 2, 0);  // no VGA
  const uint32_t flags = tables.At<uint32_t>(fadt + 112);
  EXPECT_NE(flags & 1 << 10, 0U);                // reset register
  EXPECT_NE(flags & 1 << 8, 0U);                 // 32-bit timer
  EXPECT_EQ(flags & 1 << 20, 0U);                // not hardware-reduced
  EXPECT_EQ(tables.At<uint8_t>(fadt + 116), 1);  // reset: system I/O
  EXPECT_EQ(tables.At<uint64_t>(fadt + 120), chipset::kResetControlPort);
  EXPECT_EQ(tables.At<uint8_t>(fadt + 128), chipset::kResetControlValue);
  EXPECT_EQ(tables.At<uint64_t>(fadt + 152), chipset::kPm1aEventPort);
  EXPECT_EQ(tables.At<uint64_t>(fadt + 176), chipset::kPm1aControlPort);
  EXPECT_EQ(tables.At<uint64_t>(fadt + 212), chipset::kPmTimerPort);
}

// One interrupt controller structure of the MADT.
struct MadtEntry {
  uint8_t type;
  std::vector<uint8_t> bytes;
};

std::vector<MadtEntry> MadtEntries(const Tables& tables) {
  std::vector<MadtEntry> entries;
  std::span<const uint8_t> left = tables.Bytes("APIC").subspan(44);
  while (!left.empty()) {
    EXPECT_GE(left.size(), 2U);
    const uint8_t size = left[1];
    if (size < 2 || size > left.size()) {
      ADD_FAILURE() << "MADT entry of " << int{size} << " bytes";
      break;
    }
    entries.push_back({left[0], {left.begin(), left.begin() + size}});
    left = left.subspan(size);
  }
  return entries;
}

std::vector<MadtEntry> MadtEntries(const Tables& tables, uint8_t type) {
  std::vector<MadtEntry> entries = MadtEntries(tables);
  std::erase_if(entries, [type](const MadtEntry& entry) { return entry.type != type; });
  return entries;
}

TEST(AcpiTablesTest, MadtListsProcessorsByUidAndApicId) {
  TablesConfig config = TestConfig(0);
  config.processors = {{.apic_id = 0}, {.apic_id = 2}, {.apic_id = 5, .present = false}};
  const std::vector<MadtEntry> apics = MadtEntries(TablesFor(config), 0);
  ASSERT_EQ(apics.size(), 3U);
  EXPECT_EQ(apics[1].bytes[2], 1);
  EXPECT_EQ(apics[1].bytes[3], 2);
  EXPECT_EQ(LoadLe<uint32_t>(apics[1].bytes.data() + 4), 1U);  // enabled
  EXPECT_EQ(apics[2].bytes[3], 5);
  EXPECT_EQ(LoadLe<uint32_t>(apics[2].bytes.data() + 4), 2U);  // online capable
}

TEST(AcpiTablesTest, ApicIdsFrom255OnAreX2Apics) {
  const Tables tables = TablesFor(TestConfig(300));
  EXPECT_EQ(MadtEntries(tables, 0).size(), 255U);
  const std::vector<MadtEntry> x2apics = MadtEntries(tables, 9);
  ASSERT_EQ(x2apics.size(), 45U);
  EXPECT_EQ(LoadLe<uint32_t>(x2apics[0].bytes.data() + 4), 255U);   // APIC id
  EXPECT_EQ(LoadLe<uint32_t>(x2apics[0].bytes.data() + 12), 255U);  // UID
  EXPECT_EQ(MadtEntries(tables, 10).size(), 1U);
  EXPECT_EQ(MadtEntries(TablesFor(TestConfig(2)), 10).size(), 0U);
}

TEST(AcpiTablesTest, MadtRoutesThePitToInput2AndTheSciAsALevel) {
  const std::vector<MadtEntry> overrides = MadtEntries(TablesFor(TestConfig(1)), 2);
  ASSERT_EQ(overrides.size(), 2U);
  EXPECT_EQ(overrides[0].bytes[3], 0);
  EXPECT_EQ(LoadLe<uint32_t>(overrides[0].bytes.data() + 4), 2U);
  EXPECT_EQ(overrides[1].bytes[3], 9);
  EXPECT_EQ(LoadLe<uint32_t>(overrides[1].bytes.data() + 4), 9U);
  EXPECT_EQ(LoadLe<uint16_t>(overrides[1].bytes.data() + 8), 0x0D);
}

TEST(AcpiTablesTest, McfgCoversTheBusesOfEcam) {
  for (const uint32_t buses : {1U, 16U, 256U}) {
    TablesConfig config = TestConfig(1);
    config.ecam.size = buses * memory::kEcamBusSize;
    const Tables tables = TablesFor(config);
    const uint64_t mcfg = tables.Gpa("MCFG");
    EXPECT_EQ(tables.Length(mcfg), 60U);
    EXPECT_EQ(tables.At<uint64_t>(mcfg + 44), memory::kEcamBase);
    EXPECT_EQ(tables.At<uint8_t>(mcfg + 54), 0);
    EXPECT_EQ(tables.At<uint8_t>(mcfg + 55), buses - 1);
  }
}

TEST(AcpiTablesTest, WritesTheTablesToGuestRam) {
  auto memory = memory::GuestMemory::Create({.layout = TestLayout(16)});
  ASSERT_TRUE(memory.ok());
  auto rsdp = WriteTables(TestConfig(2), **memory);
  ASSERT_TRUE(rsdp.ok()) << rsdp.status();
  std::vector<uint8_t> signature(8);
  ASSERT_TRUE((*memory)->Read(*rsdp, signature).ok());
  EXPECT_EQ(std::string(signature.begin(), signature.end()), "RSD PTR ");
}

TEST(AcpiTablesTest, AThousandProcessorsFit) { EXPECT_TRUE(BuildTables(TestConfig(1024)).ok()); }

TEST(AcpiTablesTest, TooManyProcessorsAreRefused) {
  EXPECT_EQ(BuildTables(TestConfig(4096)).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(AcpiTablesTest, SmallMachinesHaveSmallTables) {
  auto area = BuildTables(TestConfig(2));
  ASSERT_TRUE(area.ok());
  EXPECT_LT(area->size(), 4096U);  // a page
}

// Runs iasl, ACPICA's compiler and disassembler, as a second opinion.
class IaslTest : public ::testing::Test {
 protected:
  void Save(const Tables& tables) {
    for (const char* signature : {"XSDT", "FACP", "APIC", "MCFG", "DSDT", "FACS"}) {
      folder_.Write(std::string(signature) + ".aml", tables.Bytes(signature));
    }
  }
  // What iasl prints, and in what it failed.
  std::string Iasl(const std::string& arguments) {
    const std::string command = "cd '" + folder_.path() + "' && iasl " + arguments + " 2>&1";
    FILE* pipe = ::popen(command.c_str(), "r");
    if (pipe == nullptr) {
      ADD_FAILURE() << "can't run a shell";
      return "";
    }
    std::string output;
    char buffer[4096];
    for (size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) {
      output.append(buffer, n);
    }
    const int status = ::pclose(pipe);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
        << command << " (package acpica-tools):\n"
        << output;
    return output;
  }
  std::string Contents(const std::string& file) {
    std::ostringstream text;
    text << std::ifstream(folder_ / file).rdbuf();
    return text.str();
  }
  static std::string Bytes(std::span<const uint8_t> bytes) { return {bytes.begin(), bytes.end()}; }

  const TestFolder folder_;
};

TEST_F(IaslTest, DisassemblesEveryTableAndCompilesTheDsdtBackToTheSameBytes) {
  const Tables tables = TablesFor(TestConfig(3));
  Save(tables);
  for (const char* name : {"XSDT", "FACP", "APIC", "MCFG", "FACS"}) {
    const std::string output = Iasl(std::string("-d ") + name + ".aml");
    EXPECT_THAT(output, Not(HasSubstr("rror"))) << name;
    EXPECT_THAT(output, Not(HasSubstr("arning"))) << name;
    EXPECT_THAT(Contents(std::string(name) + ".dsl"), Not(HasSubstr("nvalid"))) << name;
  }
  EXPECT_THAT(Iasl("-d DSDT.aml"), Not(HasSubstr("arning")));
  const std::string source = Contents("DSDT.dsl");
  for (const char* device : {"PCI0", "MBRD", "RTC", "COM1", "COM4", "C000", "C002"}) {
    EXPECT_THAT(source, HasSubstr(std::string("Device (") + device + ")"));
  }
  EXPECT_THAT(source, HasSubstr("Name (\\_S5, Package (0x04)"));
  EXPECT_THAT(source, HasSubstr("ToUUID (\"33db4d5b-1ff7-401c-9657-7441c03dd766\")"));

  // -oa: no optimization of ours into something shorter; -we: a warning is an error.
  const std::string output = Iasl("-oa -we -p compiled DSDT.dsl");
  EXPECT_THAT(output, HasSubstr("0 Errors, 0 Warnings")) << output;
  const std::string compiled = Contents("compiled.aml");
  ASSERT_GT(compiled.size(), 36U);
  // Behind the header, which names its compiler.
  EXPECT_EQ(compiled.substr(36), Bytes(tables.Bytes("DSDT")).substr(36));
}

TEST_F(IaslTest, ProcessorsThatArentPresentSayNothingButThat) {
  TablesConfig config = TestConfig(2);
  config.processors[1].present = false;
  config.serial_ports.clear();
  Save(TablesFor(config));
  Iasl("-d DSDT.aml");
  const std::string source = Contents("DSDT.dsl");
  EXPECT_THAT(source, HasSubstr("Name (_STA, Zero)"));
  EXPECT_THAT(source, Not(HasSubstr("COM1")));
}

TEST_F(IaslTest, AsksForNoInterpretationOfTheRoutingTableAtLoad) {
  Save(TablesFor(TestConfig(1)));
  Iasl("-d DSDT.aml");
  EXPECT_THAT(Contents("DSDT.dsl"), HasSubstr("Method (_PRT, 0"));
}

}  // namespace
}  // namespace bothy::acpi
