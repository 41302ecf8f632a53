#include "virtio/pci/pci_device.h"

#include <vector>

#include "support/endian.h"

namespace bothy::virtio {
namespace {

constexpr uint16_t kVendor = 0x1AF4;
constexpr uint16_t kFirstDeviceId = 0x1040;  // plus the device type (4.1.2.1)
constexpr uint16_t kSubsystem = 0x0040;      // 4.1.2.1: at least that
constexpr uint8_t kRevision = 1;
constexpr uint8_t kBar = 0;
constexpr uint64_t kBarBytes = 0x8000;
constexpr uint32_t kMsixTable = 0x4000;
constexpr uint32_t kMsixPending = 0x6000;

// cfg_type of the capabilities (4.1.4).
constexpr uint8_t kCommonCapability = 1;
constexpr uint8_t kDoorbellCapability = 2;
constexpr uint8_t kIsrCapability = 3;
constexpr uint8_t kDeviceCapability = 4;
constexpr uint8_t kConfigAccessCapability = 5;

// struct virtio_pci_cap without its first two bytes, then what some types have behind it.
std::vector<uint8_t> Capability(uint8_t type, uint64_t offset, uint64_t length,
                                std::span<const uint32_t> more = {}) {
  std::vector<uint8_t> body(14 + 4 * more.size());
  body[0] = static_cast<uint8_t>(body.size() + 2);
  body[1] = type;
  body[2] = kBar;
  StoreLe(&body[6], static_cast<uint32_t>(offset));
  StoreLe(&body[10], static_cast<uint32_t>(length));
  for (size_t i = 0; i < more.size(); ++i) StoreLe(&body[14 + 4 * i], more[i]);
  return body;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PciDevice>> PciDevice::Create(Device& device, uint32_t class_code,
                                                             IoLoop& loop,
                                                             const memory::GuestMemory& memory,
                                                             const pci::EndpointHost& host) {
  auto pci = std::unique_ptr<PciDevice>(new PciDevice());
  pci->vectors_ = static_cast<uint16_t>(device.queue_sizes().size() + 1);  // and the configuration
  ASSIGN_OR_RETURN(pci->registers_, Registers::Create(device, loop, memory, *pci));
  pci->Assemble(device, class_code, host);
  return pci;
}

void PciDevice::Assemble(Device& device, uint32_t class_code, const pci::EndpointHost& host) {
  pci::EndpointOptions options;
  options.name = device.name();
  options.ids = {.vendor = kVendor,
                 .device = static_cast<uint16_t>(kFirstDeviceId + device.type()),
                 .subsystem_vendor = kVendor,
                 .subsystem = kSubsystem,
                 .class_code = class_code,
                 .revision = kRevision};
  options.on_bus_reset = [registers = registers_.get()] { registers->BusReset(); };
  endpoint_ = std::make_unique<pci::Endpoint>(std::move(options), host);
  endpoint_->AddBar(kBar, {.size_bytes = kBarBytes});
  endpoint_->AddRegion(kBar, 0, kWindowBytes, *registers_);
  const uint16_t queues = registers_->queue_count();
  for (uint16_t i = 0; i < queues; ++i) {
    endpoint_->AddDoorbell(kBar, kDoorbellOffset + uint64_t{i} * kDoorbellStride,
                           registers_->doorbell_fd(i));
  }
  endpoint_->AddMsix(
      kBar, {.vectors = vectors_, .table_offset = kMsixTable, .pending_offset = kMsixPending});
  const auto add = [this](uint8_t type, uint64_t offset, uint64_t length,
                          std::span<const uint32_t> more = {}) {
    endpoint_->AddCapability(pci::kCapabilityVendorSpecific,
                             Capability(type, offset, length, more));
  };
  add(kCommonCapability, kCommonOffset, kCommonBytes);
  add(kIsrCapability, kIsrOffset, 4);
  add(kDeviceCapability, kDeviceConfigOffset, kDeviceConfigBytes);
  const std::array<uint32_t, 1> stride = {kDoorbellStride};
  add(kDoorbellCapability, kDoorbellOffset, uint64_t{queues} * kDoorbellStride, stride);
  const std::array<uint32_t, 1> data = {0};
  endpoint_->AddCapability(pci::kCapabilityVendorSpecific,
                           Capability(kConfigAccessCapability, 0, 0, data), *this);
}

// struct virtio_pci_cfg_cap from its second double word on: BAR, offset, length, data.
uint32_t PciDevice::ReadCapability(uint16_t offset) {
  const std::lock_guard lock(window_mutex_);
  if (offset < 16) return window_[offset / 4 - 1];
  std::array<uint8_t, 4> data{};
  const uint32_t length = window_[2];
  const uint64_t at = window_[1];
  const bool usable = (window_[0] & 0xFF) == kBar && (length == 1 || length == 2 || length == 4) &&
                      at % length == 0 && at < kWindowBytes;
  if (usable) registers_->Read(at, std::span(data).first(length));
  return LoadLe<uint32_t>(data.data());
}

void PciDevice::WriteCapability(uint16_t offset, uint32_t value, uint32_t enabled) {
  const std::lock_guard lock(window_mutex_);
  if (offset < 16) {
    uint32_t& word = window_[offset / 4 - 1];
    word = (word & ~enabled) | (value & enabled);
    return;
  }
  const uint32_t length = window_[2];
  const uint64_t at = window_[1];
  const bool usable = (window_[0] & 0xFF) == kBar && (length == 1 || length == 2 || length == 4) &&
                      at % length == 0 && at < kWindowBytes;
  if (!usable) return;
  std::array<uint8_t, 4> data{};
  StoreLe(data.data(), value);
  registers_->Write(at, std::span<const uint8_t>(data).first(length));
}

void PciDevice::Inspect(inspect::Node& node) const {
  node.Child("pci", *endpoint_);
  node.Child("virtio", *registers_);
}

}  // namespace bothy::virtio
