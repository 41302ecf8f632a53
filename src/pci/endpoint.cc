#include "pci/endpoint.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "pci/express_capability.h"
#include "support/check.h"
#include "support/endian.h"

namespace bothy::pci {
namespace {

constexpr uint64_t kMinBarBytes = 4096;
constexpr uint32_t kBar64Bit = 2U << 1;
constexpr uint32_t kBarPrefetchable = 1U << 3;
constexpr uint64_t kBarFlagBits = 0xF;

// MSI-X Message Control, as the upper half of the capability's first double word.
constexpr uint32_t kMsixEnable = 1U << 31;
constexpr uint32_t kMsixFunctionMask = 1U << 30;

uint16_t BarRegister(uint8_t bar) {
  return static_cast<uint16_t>(kBarRegisters + bar * sizeof(uint32_t));
}

}  // namespace

Endpoint::Endpoint(EndpointOptions options, const EndpointHost& host)
    : options_(std::move(options)), host_(host), next_free_(kFirstCapability) {
  const Ids& ids = options_.ids;
  registers_.Define(kIdRegister, {.reset = uint32_t{ids.device} << 16 | ids.vendor});
  registers_.Define(kCommandRegister,
                    {.reset = kStatusCapabilities,
                     .writable = kCommandMemory | kCommandBusMaster | kCommandParity |
                                 kCommandSerr | kCommandNoInterruptLine});
  registers_.Define(kClassRegister, {.reset = ids.class_code << 8 | ids.revision});
  registers_.Define(kHeaderRegister, {.writable = 0xFF});
  registers_.Define(kSubsystemRegister,
                    {.reset = uint32_t{ids.subsystem} << 16 | ids.subsystem_vendor});
  registers_.Define(kInterruptRegister, {.writable = 0xFF});
  SetIntegrated(false);
}

Endpoint::~Endpoint() {
  const std::lock_guard lock(mutex_);
  for (uint8_t bar = 0; bar < kBarCount; ++bar) Undecode(bar);
}

uint16_t Endpoint::ReserveCapability(uint8_t id, size_t size_bytes) {
  CHECK(size_bytes >= 2 && next_free_ + size_bytes <= kLegacyConfigSpaceBytes);
  const uint16_t at = next_free_;
  next_free_ = static_cast<uint16_t>(at + (size_bytes + 3) / 4 * 4);
  if (last_capability_ == 0) {
    registers_.Define(kCapabilitiesPointer, {.reset = at});
  } else {
    // A chain: its read-only next pointer.
    registers_.Redefine(last_capability_, uint32_t{at} << 8, 0xFF00);
  }
  last_capability_ = at;
  registers_.Define(at, {.reset = id});
  return at;
}

uint16_t Endpoint::AddCapability(uint8_t id, std::span<const uint8_t> body) {
  const uint16_t at = ReserveCapability(id, body.size() + 2);
  std::vector<uint8_t> bytes((body.size() + 2 + 3) / 4 * 4);
  bytes[0] = id;
  std::copy(body.begin(), body.end(), bytes.begin() + 2);
  for (size_t i = 0; i < bytes.size(); i += 4) {
    registers_.Define(static_cast<uint16_t>(at + i), {.reset = LoadLe<uint32_t>(&bytes[i])});
  }
  return at;
}

uint16_t Endpoint::AddCapability(uint8_t id, std::span<const uint8_t> body,
                                 ConfigHandler& handler) {
  const uint16_t at = AddCapability(id, body);
  handled_.push_back({.first = at, .end = next_free_, .handler = &handler});
  return at;
}

void Endpoint::SetIntegrated(bool integrated) {
  using namespace express;  // NOLINT(google-build-using-namespace)
  if (express_capability_ == 0) {
    express_capability_ = ReserveCapability(kCapabilityExpress, kCapabilityBytes);
  }
  const uint16_t at = express_capability_;
  registers_.Redefine(at, kVersion2 | (integrated ? kTypeIntegratedEndpoint : kTypeEndpoint),
                      0xFFFF'0000);
  registers_.Define(at + kDeviceCapabilities, {.reset = kRoleBasedErrorReporting});
  registers_.Define(at + kDeviceControl,
                    {.reset = kDeviceControlReset, .writable = kDeviceControlWritable});
  // What is integrated has no link.
  const uint32_t link = integrated ? 0 : kLinkSpeed2500 | kLinkWidth1;
  registers_.Define(at + kLinkCapabilities, {.reset = link});
  registers_.Define(at + kLinkControl, {.reset = link << kLinkStatusShift,
                                        .writable = integrated ? 0 : kLinkControlWritable});
  registers_.Define(at + kLinkCapabilities2, {.reset = integrated ? 0 : kLink2Speeds2500});
}

void Endpoint::AddBar(uint8_t bar, const BarOptions& options) {
  CHECK(bar + (options.is_64_bit ? 1 : 0) < kBarCount && bars_[bar].options.size_bytes == 0);
  CHECK(bar == 0 || bars_[bar - 1].options.size_bytes == 0 || !bars_[bar - 1].options.is_64_bit);
  CHECK(std::has_single_bit(options.size_bytes) && options.size_bytes >= kMinBarBytes);
  CHECK(options.is_64_bit || options.size_bytes <= uint64_t{1} << 31);
  bars_[bar].options = options;
  const uint64_t writable = ~(options.size_bytes - 1);
  registers_.Define(BarRegister(bar), {.reset = (options.is_64_bit ? kBar64Bit : 0) |
                                                (options.prefetchable ? kBarPrefetchable : 0),
                                       .writable = static_cast<uint32_t>(writable)});
  if (options.is_64_bit) {
    registers_.Define(BarRegister(bar + 1), {.writable = static_cast<uint32_t>(writable >> 32)});
  }
}

void Endpoint::AddRegion(uint8_t bar, uint64_t offset, uint64_t size_bytes,
                         chipset::IoDevice& device) {
  CHECK(bar < kBarCount);
  BarState& state = bars_[bar];
  CHECK(size_bytes != 0 && offset <= state.options.size_bytes &&
        size_bytes <= state.options.size_bytes - offset);
  for (const Region& other : state.regions) {
    CHECK(offset + size_bytes <= other.offset || other.offset + other.size_bytes <= offset);
  }
  state.regions.push_back({.offset = offset, .size_bytes = size_bytes, .device = &device});
}

void Endpoint::AddDoorbell(uint8_t bar, uint64_t offset, int event_fd) {
  CHECK(bar < kBarCount && offset < bars_[bar].options.size_bytes);
  bars_[bar].doorbells.push_back({.offset = offset, .event_fd = event_fd, .attached = nullptr});
}

void Endpoint::AddMsix(uint8_t bar, const MsixOptions& options) {
  CHECK(msix_ == nullptr);
  CHECK(options.table_offset % 8 == 0 && options.pending_offset % 8 == 0);
  msix_ = std::make_unique<Msix>(host_.vm, options.vectors);
  AddRegion(bar, options.table_offset, msix_->table_bytes(), msix_->table());
  AddRegion(bar, options.pending_offset, msix_->pending_bytes(), msix_->pending_bits());
  constexpr size_t kMsixCapabilityBytes = 12;
  msix_capability_ = ReserveCapability(kCapabilityMsix, kMsixCapabilityBytes);
  registers_.Define(msix_capability_, {.reset = kCapabilityMsix | (options.vectors - 1U) << 16,
                                       .writable = kMsixEnable | kMsixFunctionMask});
  registers_.Define(msix_capability_ + 4, {.reset = options.table_offset | bar});
  registers_.Define(msix_capability_ + 8, {.reset = options.pending_offset | bar});
}

std::vector<Endpoint::Bar> Endpoint::bars() const {
  const std::lock_guard lock(mutex_);
  std::vector<Bar> bars;
  for (uint8_t bar = 0; bar < kBarCount; ++bar) {
    if (bars_[bar].options.size_bytes == 0) continue;
    bars.push_back({.index = bar,
                    .options = bars_[bar].options,
                    .address = BarAddress(bar),
                    .decoded = bars_[bar].decoded_at.has_value()});
  }
  return bars;
}

void Endpoint::SetBarAtReset(uint8_t bar, uint64_t address) {
  const std::lock_guard lock(mutex_);
  CHECK(bar < kBarCount && bars_[bar].options.size_bytes != 0);
  CHECK(address % bars_[bar].options.size_bytes == 0);
  CHECK(bars_[bar].options.is_64_bit || address >> 32 == 0);
  CHECK(!bars_[bar].decoded_at.has_value());
  bars_[bar].reset_address = address;
  WriteBarRegisters(bar, address);
}

uint64_t Endpoint::BarAddress(uint8_t bar) const {
  uint64_t address = registers_.Read(BarRegister(bar)) & ~kBarFlagBits;
  if (bars_[bar].options.is_64_bit) {
    address |= uint64_t{registers_.Read(BarRegister(bar + 1))} << 32;
  }
  return address;
}

void Endpoint::WriteBarRegisters(uint8_t bar, uint64_t address) {
  registers_.Set(BarRegister(bar), static_cast<uint32_t>(address),
                 static_cast<uint32_t>(~kBarFlagBits));
  if (bars_[bar].options.is_64_bit) {
    registers_.Set(BarRegister(bar + 1), static_cast<uint32_t>(address >> 32));
  }
}

const Endpoint::Handled* Endpoint::HandlerOf(uint16_t offset) const {
  for (const Handled& handled : handled_) {
    if (offset > handled.first && offset < handled.end) return &handled;
  }
  return nullptr;
}

uint32_t Endpoint::ReadConfig(uint16_t offset) {
  if (const Handled* handled = HandlerOf(offset); handled != nullptr) {
    return handled->handler->ReadCapability(offset - handled->first);
  }
  const std::lock_guard lock(mutex_);
  return registers_.Read(offset);
}

void Endpoint::WriteConfig(uint16_t offset, uint32_t value, uint32_t enabled) {
  if (const Handled* handled = HandlerOf(offset); handled != nullptr) {
    handled->handler->WriteCapability(offset - handled->first, value, enabled);
    return;
  }
  const std::lock_guard lock(mutex_);
  const uint32_t before = registers_.Read(offset);
  registers_.Write(offset, value, enabled);
  const bool is_bar = offset >= kBarRegisters && offset < BarRegister(kBarCount);
  if (is_bar || offset == kCommandRegister) UpdateDecoding();
  if (msix_ != nullptr && (offset == kCommandRegister || offset == msix_capability_) &&
      registers_.Read(offset) != before) {
    UpdateMsix();
  }
}

void Endpoint::UpdateMsix() {
  if (msix_ == nullptr) return;
  const uint32_t control = registers_.Read(msix_capability_);
  const bool bus_master = (registers_.Read(kCommandRegister) & kCommandBusMaster) != 0;
  msix_->SetFunction((control & kMsixEnable) != 0,
                     bus_master && (control & kMsixFunctionMask) == 0);
}

void Endpoint::UpdateDecoding() {
  const bool memory_enabled = (registers_.Read(kCommandRegister) & kCommandMemory) != 0;
  for (uint8_t bar = 0; bar < kBarCount; ++bar) {
    const BarState& state = bars_[bar];
    if (state.options.size_bytes == 0) continue;
    const uint64_t address = BarAddress(bar);
    // An address of 0 is "not assigned"; nothing of ours could be there.
    const bool decode = memory_enabled && address != 0;
    if (state.decoded_at == (decode ? std::optional(address) : std::nullopt)) continue;
    Undecode(bar);
    if (decode) Decode(bar, address);
  }
}

void Endpoint::Decode(uint8_t bar, uint64_t address) {
  BarState& state = bars_[bar];
  for (size_t i = 0; i < state.regions.size(); ++i) {
    const Region& region = state.regions[i];
    const absl::Status status =
        host_.mmio.Register(address + region.offset, region.size_bytes, *region.device);
    if (status.ok()) continue;
    log_limiter_.Log(LogLevel::kWarning, options_.name,
                     absl::StrCat("BAR ", bar, " doesn't answer at 0x", absl::Hex(address), ": ",
                                  std::string(status.message())));
    while (i-- > 0) {
      CHECK_OK(
          host_.mmio.Unregister(address + state.regions[i].offset, state.regions[i].size_bytes));
    }
    return;
  }
  state.decoded_at = address;
  for (DoorbellPlace& doorbell : state.doorbells) {
    auto attached = host_.vm.AttachDoorbell(
        {.guest_physical = address + doorbell.offset, .event_fd = doorbell.event_fd});
    if (attached.ok()) {
      doorbell.attached = std::move(attached).value();
    } else {
      log_limiter_.Log(LogLevel::kWarning, options_.name, std::string(attached.status().message()));
    }
  }
}

void Endpoint::Undecode(uint8_t bar) {
  BarState& state = bars_[bar];
  if (!state.decoded_at.has_value()) return;
  for (DoorbellPlace& doorbell : state.doorbells) doorbell.attached.reset();
  for (const Region& region : state.regions) {
    CHECK_OK(host_.mmio.Unregister(*state.decoded_at + region.offset, region.size_bytes));
  }
  state.decoded_at.reset();
}

void Endpoint::ResetRegisters() {
  for (uint8_t bar = 0; bar < kBarCount; ++bar) Undecode(bar);
  registers_.Reset();
  if (msix_ != nullptr) msix_->Reset();
}

void Endpoint::Reset() {
  const std::lock_guard lock(mutex_);
  ResetRegisters();
  for (uint8_t bar = 0; bar < kBarCount; ++bar) {
    if (bars_[bar].options.size_bytes != 0) WriteBarRegisters(bar, bars_[bar].reset_address);
  }
}

void Endpoint::BusReset() {
  {
    const std::lock_guard lock(mutex_);
    ResetRegisters();
  }
  if (options_.on_bus_reset) options_.on_bus_reset();
}

void Endpoint::Inspect(inspect::Node& node) const {
  node.Address("vendor", options_.ids.vendor);
  node.Address("device", options_.ids.device);
  uint32_t command = 0;
  uint32_t msix_control = 0;
  {
    const std::lock_guard lock(mutex_);
    command = registers_.Read(kCommandRegister);
    if (msix_ != nullptr) msix_control = registers_.Read(msix_capability_);
  }
  node.Value("memory_enabled", (command & kCommandMemory) != 0);
  node.Value("bus_master", (command & kCommandBusMaster) != 0);
  node.Child("bars", [this](inspect::Node& all) {
    for (const Bar& bar : bars()) {
      all.Child(absl::StrCat(bar.index), [&bar](inspect::Node& one) {
        one.Address("address", bar.address);
        one.Value("size_bytes", bar.options.size_bytes);
        one.Value("answers", bar.decoded);
      });
    }
  });
  if (msix_ == nullptr) return;
  node.Child("msix", [this, msix_control](inspect::Node& msix) {
    msix.Value("enabled", (msix_control & kMsixEnable) != 0);
    msix.Value("function_masked", (msix_control & kMsixFunctionMask) != 0);
    msix.Value("vectors", msix_->count());
  });
}

}  // namespace bothy::pci
