#include "acpi/dsdt.h"

#include <array>
#include <string>

#include "absl/strings/str_format.h"
#include "chipset/legacy_ports.h"

namespace bothy::acpi {
namespace {

using namespace aml;  // NOLINT(google-build-using-namespace): a DSDT reads like ASL

// PCI's configuration mechanism #1, which the host bridge keeps for itself.
constexpr uint16_t kPciConfigBase = 0xCF8;
constexpr uint8_t kPciConfigSize = 8;

constexpr uint32_t kPciSlots = 32;
constexpr uint32_t kPciPins = 4;

// PCI Firmware 3.2, 4.5.1: what the host bridge's _OSC answers with.
constexpr uint64_t kOscQuery = 1;
constexpr uint64_t kOscUnrecognizedUuid = 1U << 2;
constexpr uint64_t kOscUnrecognizedRevision = 1U << 3;
constexpr uint64_t kOscCapabilitiesMasked = 1U << 4;
// Native hot-plug and the PCI Express capability are the guest's. No port here reports errors or
// power management events, and what isn't granted isn't looked for at every boot.
constexpr uint64_t kOscNativeHotPlug = 1U << 0;
constexpr uint64_t kOscExpressCapability = 1U << 4;
constexpr uint64_t kOscGranted = kOscNativeHotPlug | kOscExpressCapability;

// Arg0: UUID, Arg1: revision, Arg2: count of dwords, Arg3: the dwords, changed in place.
Code PciOsc() {
  const Code refuse = Or(Path("CDW1"), Integer(kOscUnrecognizedUuid), Path("CDW1"));
  return Method(
      "_OSC", 4,
      {CreateDWordField(Arg(3), 0, "CDW1"),
       If(Equal(Arg(0), Uuid("33db4d5b-1ff7-401c-9657-7441c03dd766")),
          {CreateDWordField(Arg(3), 8, "CDW3"), And(Path("CDW3"), Integer(kOscGranted), Local(0)),
           If(NotEqual(Local(0), Path("CDW3")),
              Or(Path("CDW1"), Integer(kOscCapabilitiesMasked), Path("CDW1"))),
           Store(Local(0), Path("CDW3")),
           If(NotEqual(Arg(1), Integer(kOscQuery)),
              Or(Path("CDW1"), Integer(kOscUnrecognizedRevision), Path("CDW1")))}),
       Else(refuse), Return(Arg(3))});
}

// Where INTA..INTD of every slot of bus 0 go; slots behind bridges are swizzled onto these by the
// guest. A method, so that only a guest that uses INTx ever parses it.
Code PciRoutingTable() {
  std::vector<Code> routes;
  for (uint32_t slot = 0; slot < kPciSlots; ++slot) {
    for (uint32_t pin = 0; pin < kPciPins; ++pin) {
      const std::array<Code, 4> route = {Integer(slot << 16 | 0xFFFF), Integer(pin), Integer(0),
                                         Integer(kFirstPciGsi + (slot + pin) % kPciGsiCount)};
      routes.push_back(Package(route));
    }
  }
  return Method("_PRT", 0, Return(Package(routes)));
}

Code PciHostBridge(const TablesConfig& config) {
  Code resources = {
      BusNumberWindow(0, static_cast<uint16_t>(config.ecam.size / memory::kEcamBusSize)),
      Io(kPciConfigBase, kPciConfigSize),
      IoWindow(0, kPciConfigBase),
      IoWindow(kPciConfigBase + kPciConfigSize, 0x1'0000 - kPciConfigBase - kPciConfigSize),
  };
  for (const memory::AddressRange& window : config.pci_mmio32) {
    resources.Append(
        MemoryWindow32(static_cast<uint32_t>(window.base), static_cast<uint32_t>(window.size)));
  }
  if (config.pci_mmio64.size != 0) {
    resources.Append(MemoryWindow64(config.pci_mmio64.base, config.pci_mmio64.size));
  }
  return Device("PCI0", {Name("_HID", EisaId("PNP0A08")), Name("_CID", EisaId("PNP0A03")),
                         Name("_UID", Integer(0)), Name("_CRS", ResourceTemplate(resources)),
                         PciRoutingTable(), PciOsc()});
}

// Keeps the guest from giving these to somebody else (PCI Firmware 3.2, 4.1.2 asks so for ECAM).
Code MotherboardResources(const TablesConfig& config) {
  return Device(
      "MBRD",
      {Name("_HID", EisaId("PNP0C02")), Name("_UID", Integer(0)),
       Name("_CRS", ResourceTemplate({Memory32Fixed(static_cast<uint32_t>(config.ecam.base),
                                                    static_cast<uint32_t>(config.ecam.size)),
                                      Io(chipset::kPmBase, chipset::kPmSize)}))});
}

Code SerialPort(uint32_t port) {
  const chipset::SerialPortResources& resources = chipset::kSerialPorts[port];
  constexpr uint64_t kPresentEnabledShownWorking = 0xF;
  return Device(absl::StrFormat("COM%d", port + 1),
                {Name("_HID", EisaId("PNP0501")), Name("_UID", Integer(port + 1)),
                 Name("_STA", Integer(kPresentEnabledShownWorking)),
                 Name("_CRS", ResourceTemplate({Io(resources.base, chipset::kSerialPortSize),
                                                // COM1 and COM3 share a line, as COM2 and COM4 do.
                                                SharedIrq(resources.irq)}))});
}

Code RealTimeClock() {
  return Device("RTC_", {Name("_HID", EisaId("PNP0B00")),
                         Name("_CRS", ResourceTemplate({Io(chipset::kRtcBase, chipset::kRtcSize),
                                                        Irq(chipset::kRtcIrq)}))});
}

// "C" and the UID in hexadecimal: names of four characters for 4096 processors. The UID is also
// what the MADT calls the processor.
Code ProcessorDevice(uint32_t uid, const Processor& processor) {
  Code terms = {Name("_HID", String("ACPI0007")), Name("_UID", Integer(uid))};
  if (!processor.present) terms.Append(Name("_STA", Integer(0)));
  return Device(absl::StrFormat("C%03X", uid), terms);
}

Code SleepState(const std::string& name, uint64_t type) {
  const std::array<Code, 4> values = {Integer(type), Integer(type), Integer(0), Integer(0)};
  return Name(name, Package(values));
}

}  // namespace

Code BuildDsdt(const TablesConfig& config) {
  Code system_bus = {PciHostBridge(config), MotherboardResources(config), RealTimeClock()};
  for (const uint32_t port : config.serial_ports) system_bus.Append(SerialPort(port));
  for (uint32_t uid = 0; uid < config.processors.size(); ++uid) {
    system_bus.Append(ProcessorDevice(uid, config.processors[uid]));
  }
  return {Scope("\\_SB_", system_bus), SleepState("\\_S5_", chipset::kSleepTypeS5)};
}

}  // namespace bothy::acpi
