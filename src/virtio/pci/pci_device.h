// PciDevice: a virtio device as a PCI Express function (virtio 1.2, 4.1): its Registers behind a
// BAR, its capabilities, its MSI-X vectors.
//
//   ASSIGN_OR_RETURN(auto function, PciDevice::Create(device, loop, memory,
//   topology.endpoint_host())); topology.Plug(port, function->endpoint());
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "memory/guest_memory.h"
#include "pci/endpoint.h"
#include "support/io_loop.h"
#include "virtio/device.h"
#include "virtio/pci/registers.h"

namespace bothy::virtio {

class PciDevice final : private InterruptSink, private pci::ConfigHandler {
 public:
  // Everything given outlives the object. `class_code` is PCI's, 24 bits.
  static absl::StatusOr<std::unique_ptr<PciDevice>> Create(Device& device, uint32_t class_code,
                                                           IoLoop& loop,
                                                           const memory::GuestMemory& memory,
                                                           const pci::EndpointHost& host);
  // Detached from its bus, and stopped.
  ~PciDevice() override = default;

  [[nodiscard]] pci::Endpoint& endpoint() { return *endpoint_; }
  [[nodiscard]] Registers& registers() { return *registers_; }
  void Inspect(inspect::Node& node) const;

 private:
  PciDevice() = default;
  void Assemble(Device& device, uint32_t class_code, const pci::EndpointHost& host);

  // InterruptSink.
  void Signal(uint16_t vector) override { endpoint_->msix_vector(vector).Signal(); }
  absl::StatusOr<int> EventFd(uint16_t vector) override {
    return endpoint_->msix_vector(vector).EventFd();
  }
  [[nodiscard]] uint16_t vector_count() const override { return vectors_; }

  // pci::ConfigHandler: access to the BAR through configuration space (4.1.4.9).
  uint32_t ReadCapability(uint16_t offset) override;
  void WriteCapability(uint16_t offset, uint32_t value, uint32_t enabled) override;

  uint16_t vectors_ = 0;
  std::unique_ptr<Registers> registers_;
  std::unique_ptr<pci::Endpoint> endpoint_;  // before the registers it shows go
  std::mutex window_mutex_;
  std::array<uint32_t, 3> window_{};  // BAR, offset, length; guarded by window_mutex_
};

}  // namespace bothy::virtio
