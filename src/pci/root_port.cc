#include "pci/root_port.h"

#include <utility>

#include "pci/express_capability.h"
#include "support/check.h"

namespace bothy::pci {
namespace {

using namespace express;  // NOLINT(google-build-using-namespace): the registers of the slot

// "PCI Express root port" of the range that Red Hat keeps for virtual machines: no vendor's quirks.
constexpr uint32_t kIds = 0x000C'1B36;
constexpr uint32_t kClass = 0x0604'0000;  // PCI-to-PCI bridge, revision 0

// Type 1 header (7.5.1.3), by double word.
constexpr uint16_t kBusNumbers = 0x18;  // primary, secondary, subordinate
constexpr uint16_t kMemoryWindow = 0x20;
constexpr uint16_t kPrefetchableWindow = 0x24;
constexpr uint16_t kPrefetchableBaseHigh = 0x28;
constexpr uint16_t kPrefetchableLimitHigh = 0x2C;
constexpr uint32_t kWindowBits = 0xFFF0'FFF0;
constexpr uint32_t kWindow64Bit = 0x0001'0001;
constexpr uint32_t kClosedWindow = 0x0000'FFF0;  // base above limit
// Bridge Control, as the upper half of the double word: parity, SERR, ISA and VGA enables mean
// nothing here but are kept.
constexpr uint32_t kBridgeControlWritable = 0x005F'0000;
constexpr uint32_t kSecondaryBusReset = 1U << 22;

constexpr uint16_t kExpress = kFirstCapability;
constexpr uint16_t kMsi = kExpress + kCapabilityBytes + 4;
constexpr uint16_t kMsiAddressLow = kMsi + 4;
constexpr uint16_t kMsiAddressHigh = kMsi + 8;
constexpr uint16_t kMsiData = kMsi + 12;
// Message Control, as the upper half.
constexpr uint32_t kMsiEnable = 1U << 16;
constexpr uint32_t kMsi64Bit = 1U << 23;

constexpr DeviceFunction kSlotFunction{0, 0};

// Base and limit of a window in units of 1 MiB, in the layout of both windows' registers.
uint32_t WindowRegister(const memory::AddressRange& window) {
  if (window.size == 0) return kClosedWindow;
  const uint64_t last = window.end() - 1;
  return static_cast<uint32_t>((window.base >> 16 & 0xFFF0) | (last >> 16 & 0xFFF0) << 16);
}

}  // namespace

RootPort::RootPort(const RootPortOptions& options, hypervisor::Vm& vm)
    : options_(options), msi_(vm.CreateMsiRoute()) {
  for (const memory::AddressRange& window : {options.memory_window, options.prefetchable_window}) {
    CHECK(window.base % memory::kMiB == 0 && window.size % memory::kMiB == 0);
  }
  CHECK(options.memory_window.end() <= memory::k4GiB);
  DefineHeader();
  DefineExpressCapability();
  DefineMsiCapability();
  UpdateBusNumbers();
}

RootPort::~RootPort() = default;

void RootPort::DefineHeader() {
  registers_.Define(kIdRegister, {.reset = kIds});
  // Firmware would have opened it.
  registers_.Define(kCommandRegister,
                    {.reset = kStatusCapabilities | kCommandMemory | kCommandBusMaster,
                     .writable = kCommandMemory | kCommandBusMaster | kCommandParity |
                                 kCommandSerr | kCommandNoInterruptLine});
  registers_.Define(kClassRegister, {.reset = kClass});
  registers_.Define(kHeaderRegister, {.reset = kHeaderTypeBridge |
                                               (options_.multifunction ? kHeaderMultifunction : 0),
                                      .writable = 0xFF});
  registers_.Define(kBusNumbers,
                    {.reset = uint32_t{options_.bus} << 16 | uint32_t{options_.bus} << 8,
                     .writable = 0x00FF'FFFF});
  registers_.Define(kMemoryWindow,
                    {.reset = WindowRegister(options_.memory_window), .writable = kWindowBits});
  const memory::AddressRange& prefetchable = options_.prefetchable_window;
  registers_.Define(kPrefetchableWindow, {.reset = WindowRegister(prefetchable) | kWindow64Bit,
                                          .writable = kWindowBits});
  const uint64_t last = prefetchable.size == 0 ? 0 : prefetchable.end() - 1;
  registers_.Define(kPrefetchableBaseHigh, {.reset = static_cast<uint32_t>(prefetchable.base >> 32),
                                            .writable = kAllOnes});
  registers_.Define(kPrefetchableLimitHigh,
                    {.reset = static_cast<uint32_t>(last >> 32), .writable = kAllOnes});
  registers_.Define(kCapabilitiesPointer, {.reset = kExpress});
  registers_.Define(kInterruptRegister, {.writable = 0xFF | kBridgeControlWritable});
}

void RootPort::DefineExpressCapability() {
  registers_.Define(kExpress, {.reset = kCapabilityExpress | uint32_t{kMsi} << 8 | kVersion2 |
                                        kTypeRootPort | kSlotImplemented});
  registers_.Define(kExpress + kDeviceCapabilities, {.reset = kRoleBasedErrorReporting});
  registers_.Define(kExpress + kDeviceControl,
                    {.reset = kDeviceControlReset, .writable = kDeviceControlWritable});
  registers_.Define(kExpress + kLinkCapabilities,
                    {.reset = kLinkSpeed2500 | kLinkWidth1 | kLinkActiveReporting |
                              uint32_t{options_.slot} << kLinkPortNumberShift});
  registers_.Define(kExpress + kLinkControl, {.writable = kLinkControlWritable});
  registers_.Define(kExpress + kLinkCapabilities2, {.reset = kLink2Speeds2500});
  registers_.Define(
      kExpress + kSlotCapabilities,
      {.reset = kSlotAttentionButton | kSlotPowerIndicator | kSlotHotPlug |
                kSlotNoCommandCompleted | uint32_t{options_.slot} << kSlotNumberShift});
  registers_.Define(
      kExpress + kSlotControl,
      {.reset = static_cast<uint32_t>(Indicator::kOff) << kPowerIndicatorShift,
       .writable = kAttentionButtonEnable | kPresenceChangedEnable | kHotPlugInterruptEnable |
                   kPowerIndicatorMask | kLinkChangedEnable,
       .write_one_to_clear = kAttentionButtonPressed | kPresenceChanged | kLinkChanged});
}

// 64-bit addresses, one vector, no mask (PCI Local Bus 3.0, 6.8.1).
void RootPort::DefineMsiCapability() {
  registers_.Define(kMsi, {.reset = kCapabilityMsi | kMsi64Bit, .writable = kMsiEnable});
  registers_.Define(kMsiAddressLow, {.writable = 0xFFFF'FFFC});
  registers_.Define(kMsiAddressHigh, {.writable = kAllOnes});
  registers_.Define(kMsiData, {.writable = 0xFFFF});
}

absl::Status RootPort::Plug(Function& function) {
  const std::lock_guard lock(mutex_);
  if (plugged_ != nullptr) return absl::AlreadyExistsError("pci: the slot is taken");
  RETURN_IF_ERROR(secondary_bus_.Attach(kSlotFunction, function));
  plugged_ = &function;
  ++plugs_;
  given_up_ = false;
  looked_at_ = false;
  ShowPresence();
  // Where nobody listens for hot-plug (yet), it is as if it had been there at power-on.
  if ((registers_.Read(kExpress + kSlotControl) & kHotPlugInterruptEnable) == 0) {
    SetIndicator(Indicator::kOn);
  }
  RaiseSlotEvents(kPresenceChanged | kLinkChanged);
  return absl::OkStatus();
}

absl::Status RootPort::RequestRemoval(RemovalDone done) {
  {
    const std::lock_guard lock(mutex_);
    if (plugged_ == nullptr) return absl::FailedPreconditionError("pci: the slot is empty");
    if (removal_ != nullptr) {
      return absl::FailedPreconditionError("pci: the removal is under way");
    }
    if (looked_at_) {
      removal_ = std::move(done);
      if (given_up_ && indicator() == Indicator::kBlink) {
        // It is still about to let go, and so it shall: the press that would have stopped it is
        // taken back, if it isn't too late for that.
        registers_.Set(kExpress + kSlotControl, 0, kAttentionButtonPressed);
        UpdateInterrupt();
      } else {
        Press();
      }
      given_up_ = false;
      return absl::OkStatus();
    }
    Unplug();
    RaiseSlotEvents(kPresenceChanged | kLinkChanged);
  }
  done(absl::OkStatus());
  return absl::OkStatus();
}

bool RootPort::CancelRemoval(const absl::Status& reason) {
  RemovalDone done;
  {
    const std::lock_guard lock(mutex_);
    if (removal_ == nullptr) return false;
    done = std::exchange(removal_, nullptr);
    const uint32_t status = registers_.Read(kExpress + kSlotControl);
    if (indicator() == Indicator::kBlink) {
      given_up_ = true;
      Press();
    } else if ((status & kAttentionButtonPressed) != 0) {
      // Not seen yet. If it is being seen right now, OnIndicator makes up for it.
      registers_.Set(kExpress + kSlotControl, 0, kAttentionButtonPressed);
      UpdateInterrupt();
    }
  }
  done(reason);
  return true;
}

bool RootPort::occupied() const {
  const std::lock_guard lock(mutex_);
  return plugged_ != nullptr;
}

const Bus* RootPort::BusNumbered(uint64_t bus) const {
  const uint32_t numbers = bus_numbers_.load(std::memory_order_relaxed);
  if ((numbers >> 8 & 0xFF) != bus) return nullptr;
  if (!looked_at_.load(std::memory_order_relaxed)) looked_at_ = true;
  return &secondary_bus_;
}

uint32_t RootPort::ReadConfig(uint16_t offset) {
  const std::lock_guard lock(mutex_);
  return registers_.Read(offset);
}

void RootPort::WriteConfig(uint16_t offset, uint32_t value, uint32_t enabled) {
  RemovalDone done;
  {
    const std::lock_guard lock(mutex_);
    const uint32_t before = registers_.Read(offset);
    const Indicator indicator_before = indicator();
    registers_.Write(offset, value, enabled);
    const uint32_t now = registers_.Read(offset);
    switch (offset) {
      case kBusNumbers:
        UpdateBusNumbers();
        break;
      case kInterruptRegister:
        if ((~before & now & kSecondaryBusReset) != 0 && plugged_ != nullptr) plugged_->BusReset();
        break;
      case kExpress + kSlotControl: {
        // Drivers clear old events as they start: they would never hear of an earlier press.
        const bool listens = (~before & now & kHotPlugInterruptEnable) != 0;
        if (listens && removal_ != nullptr && indicator() != Indicator::kBlink) Press();
        if (indicator() != indicator_before) OnIndicator(indicator_before, indicator(), done);
        break;
      }
      default:
        break;
    }
    UpdateInterrupt();
  }
  if (done != nullptr) done(absl::OkStatus());
}

void RootPort::OnIndicator(Indicator before, Indicator now, RemovalDone& done) {
  switch (now) {
    case Indicator::kBlink:
      // Blinking after off means that the guest is starting the device, blinking after on that it
      // has seen the button pressed.
      on_before_blinking_ = before == Indicator::kOn;
      if (on_before_blinking_ && plugged_ != nullptr && removal_ == nullptr) {
        // A press of a removal that has been given up meanwhile.
        given_up_ = true;
        Press();
      }
      break;
    case Indicator::kOn:
      given_up_ = false;
      // It took a press for a change of mind, which it isn't (any more).
      if (before == Indicator::kBlink && on_before_blinking_ && removal_ != nullptr) Press();
      break;
    case Indicator::kOff:
      if (plugged_ == nullptr) break;
      if (removal_ != nullptr) {
        done = std::exchange(removal_, nullptr);
        Unplug();
        RaiseSlotEvents(kPresenceChanged | kLinkChanged);
      } else if (given_up_) {
        // Too late to stop it: it finds the device anew.
        given_up_ = false;
        plugged_->BusReset();
        RaiseSlotEvents(kPresenceChanged | kLinkChanged);
      }
      // What the guest has let go of by itself can be taken without asking.
      looked_at_ = false;
      break;
    case Indicator::kReserved:
      break;
  }
}

void RootPort::Press() { RaiseSlotEvents(kAttentionButtonPressed); }

void RootPort::Unplug() {
  // Nobody finds it any more, then it stops answering.
  CHECK_OK(secondary_bus_.Detach(kSlotFunction));
  plugged_->BusReset();
  plugged_ = nullptr;
  given_up_ = false;
  ++removals_;
  ShowPresence();
}

void RootPort::ShowPresence() {
  const bool present = plugged_ != nullptr;
  constexpr uint32_t kLinkUp = kLinkActive | (kLinkSpeed2500 | kLinkWidth1) << kLinkStatusShift;
  registers_.Set(kExpress + kLinkControl, present ? kLinkUp : 0, kLinkUp);
  registers_.Set(kExpress + kSlotControl, present ? kPresent : 0, kPresent);
}

void RootPort::RaiseSlotEvents(uint32_t events) {
  registers_.Set(kExpress + kSlotControl, events, events);
  UpdateInterrupt();
}

// 6.7.3.4: a message is sent when the conjunction of all of these becomes true.
bool RootPort::InterruptWanted() const {
  const uint32_t slot = registers_.Read(kExpress + kSlotControl);
  const bool event =
      ((slot & kAttentionButtonPressed) != 0 && (slot & kAttentionButtonEnable) != 0) ||
      ((slot & kPresenceChanged) != 0 && (slot & kPresenceChangedEnable) != 0) ||
      ((slot & kLinkChanged) != 0 && (slot & kLinkChangedEnable) != 0);
  return event && (slot & kHotPlugInterruptEnable) != 0 &&
         (registers_.Read(kMsi) & kMsiEnable) != 0 &&
         (registers_.Read(kCommandRegister) & kCommandBusMaster) != 0;
}

void RootPort::UpdateInterrupt() {
  const bool wanted = InterruptWanted();
  if (wanted && !interrupting_) {
    msi_->Update({.address = uint64_t{registers_.Read(kMsiAddressHigh)} << 32 |
                             registers_.Read(kMsiAddressLow),
                  .data = registers_.Read(kMsiData)});
    msi_->Signal();
  }
  interrupting_ = wanted;
}

RootPort::Indicator RootPort::indicator() const {
  return static_cast<Indicator>((registers_.Read(kExpress + kSlotControl) & kPowerIndicatorMask) >>
                                kPowerIndicatorShift);
}

void RootPort::SetIndicator(Indicator value) {
  registers_.Set(kExpress + kSlotControl, static_cast<uint32_t>(value) << kPowerIndicatorShift,
                 kPowerIndicatorMask);
}

void RootPort::UpdateBusNumbers() {
  bus_numbers_.store(registers_.Read(kBusNumbers), std::memory_order_relaxed);
}

void RootPort::Reset() {
  RemovalDone done;
  {
    const std::lock_guard lock(mutex_);
    // The guest that was asked is gone.
    if (removal_ != nullptr) {
      done = std::exchange(removal_, nullptr);
      Unplug();
    }
    registers_.Reset();
    UpdateBusNumbers();
    ShowPresence();
    if (plugged_ != nullptr) SetIndicator(Indicator::kOn);
    given_up_ = false;
    on_before_blinking_ = false;
    interrupting_ = false;
    looked_at_ = false;
    secondary_bus_.Reset();
  }
  if (done != nullptr) done(absl::OkStatus());
}

void RootPort::Inspect(inspect::Node& node) const {
  const std::lock_guard lock(mutex_);
  node.Value("slot", options_.slot);
  node.Value("bus", uint32_t{registers_.Read(kBusNumbers) >> 8 & 0xFF});
  node.Value("occupied", plugged_ != nullptr);
  node.Value("removal_pending", removal_ != nullptr);
  const char* const kIndicators[] = {"reserved", "on", "blinking", "off"};
  node.Value("power_indicator", kIndicators[static_cast<size_t>(indicator())]);
  node.Value("plugged", plugs_);
  node.Value("removed", removals_);
}

}  // namespace bothy::pci
