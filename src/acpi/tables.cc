#include "acpi/tables.h"

#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "acpi/dsdt.h"
#include "chipset/legacy_ports.h"
#include "support/check.h"
#include "support/endian.h"

namespace bothy::acpi {
namespace {

constexpr std::string_view kOemId = "BOTHY ";
constexpr std::string_view kOemTableId = "BOTHYVM ";
constexpr uint32_t kOemRevision = 1;
constexpr std::string_view kCreatorId = "BTHY";

constexpr size_t kChecksumOffset = 9;
constexpr size_t kLengthOffset = 4;
constexpr size_t kHeaderBytes = 36;
constexpr size_t kRsdpBytes = 36;
constexpr size_t kFacsBytes = 64;
constexpr size_t kFacsAlignment = 64;
constexpr size_t kTableAlignment = 8;

// Bytes of a table, appended field by field.
class Bytes {
 public:
  void Text(std::string_view text) { bytes_.insert(bytes_.end(), text.begin(), text.end()); }
  void Append(std::span<const uint8_t> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void U8(uint8_t value) { bytes_.push_back(value); }
  void U16(uint16_t value) { Little(value); }
  void U32(uint32_t value) { Little(value); }
  void U64(uint64_t value) { Little(value); }
  void Zero(size_t count) { bytes_.resize(bytes_.size() + count); }
  void AlignTo(size_t alignment) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
  }
  [[nodiscard]] size_t size() const { return bytes_.size(); }
  [[nodiscard]] std::vector<uint8_t>& bytes() { return bytes_; }

 private:
  template <typename T>
  void Little(T value) {
    bytes_.resize(bytes_.size() + sizeof value);
    StoreLe(bytes_.data() + bytes_.size() - sizeof value, value);
  }

  std::vector<uint8_t> bytes_;
};

// What makes all of `bytes` sum up to 0.
uint8_t Checksum(std::span<const uint8_t> bytes) {
  uint8_t sum = 0;
  for (const uint8_t byte : bytes) sum = static_cast<uint8_t>(sum + byte);
  return static_cast<uint8_t>(-sum);
}

// ACPI 6.4, 5.2.6: the header every table but RSDP and FACS begins with.
Bytes NewTable(std::string_view signature, uint8_t revision) {
  Bytes table;
  table.Text(signature);
  table.U32(0);  // length, see Finished
  table.U8(revision);
  table.U8(0);  // checksum, see Finished
  table.Text(kOemId);
  table.Text(kOemTableId);
  table.U32(kOemRevision);
  table.Text(kCreatorId);
  table.U32(kOemRevision);
  CHECK(table.size() == kHeaderBytes);
  return table;
}

std::vector<uint8_t> Finished(Bytes table) {
  std::vector<uint8_t> bytes = std::move(table.bytes());
  StoreLe(bytes.data() + kLengthOffset, static_cast<uint32_t>(bytes.size()));
  bytes[kChecksumOffset] = Checksum(bytes);
  return bytes;
}

// A generic address structure for a register in I/O space; `access_size` per 5.2.3.2.
void IoAddress(Bytes& table, uint16_t port, uint8_t bits, uint8_t access_size) {
  constexpr uint8_t kSystemIo = 1;
  table.U8(kSystemIo);
  table.U8(bits);
  table.U8(0);
  table.U8(access_size);
  table.U64(port);
}
constexpr size_t kGenericAddressBytes = 12;
// CMOS index of the RTC's century.
constexpr uint8_t kRtcCentury = 0x32;
constexpr uint8_t kAccessByte = 1;
constexpr uint8_t kAccessWord = 2;
constexpr uint8_t kAccessDWord = 3;

// 5.2.9: FADT of ACPI 6.4.
std::vector<uint8_t> Fadt(uint32_t facs_gpa, uint32_t dsdt_gpa) {
  constexpr uint8_t kMajor = 6;
  constexpr uint8_t kMinor = 4;
  constexpr uint8_t kProfileUnspecified = 0;
  // IAPC_BOOT_ARCH: there are devices on what used to be ISA (COM ports), no 8042, no VGA.
  constexpr uint16_t kLegacyDevices = 1U << 0;
  constexpr uint16_t kVgaNotPresent = 1U << 2;
  // Fixed feature flags. The power button is PM1a's; a sleep button as "control method" means there
  // is none unless the DSDT has one.
  constexpr uint32_t kWbinvd = 1U << 0;
  constexpr uint32_t kProcC1 = 1U << 2;
  constexpr uint32_t kSleepButtonIsDevice = 1U << 5;
  constexpr uint32_t kRtcWakeNotFixed = 1U << 6;
  constexpr uint32_t kTimerIs32Bit = 1U << 8;
  constexpr uint32_t kResetRegister = 1U << 10;
  // C2 and C3 don't exist: latencies beyond what the specification allows them.
  constexpr uint16_t kNoC2 = 0x0FFF;
  constexpr uint16_t kNoC3 = 0x0FFF;

  Bytes table = NewTable("FACP", kMajor);
  table.U32(facs_gpa);
  table.U32(dsdt_gpa);
  table.U8(0);
  table.U8(kProfileUnspecified);
  table.U16(chipset::kSciIrq);
  table.U32(0);  // SMI_CMD: always in ACPI mode, so that the four values for it are 0 as well
  table.Zero(4);
  table.U32(chipset::kPm1aEventPort);
  table.U32(0);  // PM1b event
  table.U32(chipset::kPm1aControlPort);
  table.U32(0);  // PM1b control
  table.U32(0);  // PM2 control
  table.U32(chipset::kPmTimerPort);
  table.U32(0);  // GPE0
  table.U32(0);  // GPE1
  table.U8(chipset::kPm1EventLength);
  table.U8(chipset::kPm1ControlLength);
  table.U8(0);  // PM2 control
  table.U8(chipset::kPmTimerLength);
  table.Zero(4);  // GPE0, GPE1: lengths, base; C-state change value
  table.U16(kNoC2);
  table.U16(kNoC3);
  table.Zero(4);  // cache flush size and stride: WBINVD works
  table.Zero(2);  // duty cycle: no throttling
  table.Zero(2);  // RTC day and month alarm: not there
  table.U8(kRtcCentury);
  table.U16(kLegacyDevices | kVgaNotPresent);
  table.U8(0);
  table.U32(kWbinvd | kProcC1 | kSleepButtonIsDevice | kRtcWakeNotFixed | kTimerIs32Bit |
            kResetRegister);
  IoAddress(table, chipset::kResetControlPort, 8, kAccessByte);
  table.U8(chipset::kResetControlValue);
  table.U16(0);  // ARM
  table.U8(kMinor);
  table.U64(0);  // X_FIRMWARE_CTRL: the 32-bit one is used, both at once are forbidden
  table.U64(dsdt_gpa);
  IoAddress(table, chipset::kPm1aEventPort, chipset::kPm1EventLength * 8, kAccessWord);
  table.Zero(kGenericAddressBytes);
  IoAddress(table, chipset::kPm1aControlPort, chipset::kPm1ControlLength * 8, kAccessWord);
  table.Zero(kGenericAddressBytes);
  table.Zero(kGenericAddressBytes);  // PM2 control
  IoAddress(table, chipset::kPmTimerPort, chipset::kPmTimerLength * 8, kAccessDWord);
  table.Zero(2 * kGenericAddressBytes);  // GPE0, GPE1
  table.Zero(2 * kGenericAddressBytes);  // sleep control and status: hardware-reduced only
  table.U64(0);                          // hypervisor vendor
  CHECK(table.size() == 276);
  return Finished(std::move(table));
}

// 5.2.10. Not a table with a checksum; the guest writes to it.
std::vector<uint8_t> Facs() {
  constexpr uint8_t kVersion = 2;
  Bytes facs;
  facs.Text("FACS");
  facs.U32(kFacsBytes);
  facs.Zero(24);  // hardware signature, waking vectors, global lock, flags
  facs.U8(kVersion);
  facs.Zero(kFacsBytes - facs.size());
  return std::move(facs.bytes());
}

// 5.2.12.
std::vector<uint8_t> Madt(const TablesConfig& config) {
  constexpr uint8_t kRevision = 5;
  constexpr uint32_t kHas8259 = 1U << 0;
  constexpr uint8_t kLocalApic = 0;
  constexpr uint8_t kIoApic = 1;
  constexpr uint8_t kInterruptOverride = 2;
  constexpr uint8_t kLocalApicNmi = 4;
  constexpr uint8_t kLocalX2Apic = 9;
  constexpr uint8_t kLocalX2ApicNmi = 10;
  constexpr uint32_t kEnabled = 1U << 0;
  constexpr uint32_t kOnlineCapable = 1U << 1;
  constexpr uint32_t kMaxLocalApicId = 254;
  constexpr uint16_t kConforming = 0;
  constexpr uint16_t kLevelActiveHigh = 0x0D;
  constexpr uint8_t kNmiPin = 1;  // LINT1

  Bytes table = NewTable("APIC", kRevision);
  table.U32(memory::kLocalApicBase);
  table.U32(kHas8259);
  bool any_x2apic = false;
  for (uint32_t uid = 0; uid < config.processors.size(); ++uid) {
    const Processor& processor = config.processors[uid];
    const uint32_t flags = processor.present ? kEnabled : kOnlineCapable;
    // Small ids go into the old structure even where there are others (5.2.12.12).
    if (processor.apic_id <= kMaxLocalApicId && uid <= kMaxLocalApicId) {
      table.U8(kLocalApic);
      table.U8(8);
      table.U8(static_cast<uint8_t>(uid));
      table.U8(static_cast<uint8_t>(processor.apic_id));
      table.U32(flags);
    } else {
      any_x2apic = true;
      table.U8(kLocalX2Apic);
      table.U8(16);
      table.U16(0);
      table.U32(processor.apic_id);
      table.U32(flags);
      table.U32(uid);
    }
  }
  table.U8(kIoApic);
  table.U8(12);
  table.U8(0);  // id
  table.U8(0);
  table.U32(memory::kIoApicBase);
  table.U32(0);  // first GSI
  auto interrupt_override = [&](uint8_t irq, uint32_t gsi, uint16_t flags) {
    table.U8(kInterruptOverride);
    table.U8(10);
    table.U8(0);  // ISA
    table.U8(irq);
    table.U32(gsi);
    table.U16(flags);
  };
  interrupt_override(0, 2, kConforming);  // the PIT is on the I/O APIC's third input
  interrupt_override(chipset::kSciIrq, chipset::kSciIrq, kLevelActiveHigh);
  table.U8(kLocalApicNmi);
  table.U8(6);
  table.U8(0xFF);  // every processor
  table.U16(kConforming);
  table.U8(kNmiPin);
  if (any_x2apic) {
    table.U8(kLocalX2ApicNmi);
    table.U8(12);
    table.U16(kConforming);
    table.U32(UINT32_MAX);
    table.U8(kNmiPin);
    table.Zero(3);
  }
  return Finished(std::move(table));
}

std::vector<uint8_t> Mcfg(const TablesConfig& config) {
  Bytes table = NewTable("MCFG", 1);
  table.Zero(8);
  table.U64(config.ecam.base);
  table.U16(0);  // segment
  table.U8(0);   // first bus
  table.U8(static_cast<uint8_t>(config.ecam.size / memory::kEcamBusSize - 1));
  table.Zero(4);
  return Finished(std::move(table));
}

std::vector<uint8_t> Dsdt(const TablesConfig& config) {
  constexpr uint8_t kRevision = 2;  // integers are 64-bit
  Bytes table = NewTable("DSDT", kRevision);
  table.Append(BuildDsdt(config).bytes());
  return Finished(std::move(table));
}

std::vector<uint8_t> Xsdt(std::span<const uint64_t> tables) {
  Bytes table = NewTable("XSDT", 1);
  for (const uint64_t gpa : tables) table.U64(gpa);
  return Finished(std::move(table));
}

// 5.2.5.3.
std::vector<uint8_t> Rsdp(uint64_t xsdt_gpa) {
  constexpr uint8_t kRevision = 2;
  constexpr size_t kFirstVersionBytes = 20;
  constexpr size_t kChecksumAt = 8;
  constexpr size_t kExtendedChecksumAt = 32;
  Bytes table;
  table.Text("RSD PTR ");
  table.U8(0);
  table.Text(kOemId);
  table.U8(kRevision);
  table.U32(0);  // no RSDT
  table.U32(kRsdpBytes);
  table.U64(xsdt_gpa);
  table.Zero(4);
  std::vector<uint8_t> bytes = std::move(table.bytes());
  CHECK(bytes.size() == kRsdpBytes);
  bytes[kChecksumAt] = Checksum(std::span(bytes).first(kFirstVersionBytes));
  bytes[kExtendedChecksumAt] = Checksum(bytes);
  return bytes;
}

}  // namespace

absl::StatusOr<std::vector<uint8_t>> BuildTables(const TablesConfig& config) {
  Bytes area;
  area.Zero(kRsdpBytes);  // filled in last
  auto place = [&](std::span<const uint8_t> table, size_t alignment) {
    area.AlignTo(alignment);
    const uint64_t gpa = kTableArea.base + area.size();
    area.Append(table);
    return gpa;
  };
  const uint64_t facs = place(Facs(), kFacsAlignment);
  const uint64_t dsdt = place(Dsdt(config), kTableAlignment);
  // The FADT holds 32 bits of these; the area ends at 1 MiB, and what doesn't fit fails below.
  const std::array<uint64_t, 3> tables = {
      place(Fadt(static_cast<uint32_t>(facs), static_cast<uint32_t>(dsdt)), kTableAlignment),
      place(Madt(config), kTableAlignment), place(Mcfg(config), kTableAlignment)};
  const uint64_t xsdt = place(Xsdt(tables), kTableAlignment);
  std::vector<uint8_t> bytes = std::move(area.bytes());
  const std::vector<uint8_t> rsdp = Rsdp(xsdt);
  std::memcpy(bytes.data(), rsdp.data(), rsdp.size());
  if (bytes.size() > kTableArea.size) {
    return absl::ResourceExhaustedError(
        absl::StrCat("ACPI tables for ", config.processors.size(), " processors take ",
                     bytes.size(), " bytes, there is room for ", kTableArea.size));
  }
  return bytes;
}

absl::StatusOr<uint64_t> WriteTables(const TablesConfig& config, memory::GuestMemory& memory) {
  ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, BuildTables(config));
  RETURN_IF_ERROR(memory.Write(kTableArea.base, bytes));
  return kTableArea.base;
}

}  // namespace bothy::acpi
